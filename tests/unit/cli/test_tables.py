import pytest

from kitemesh_cli.tables import lay_out, length


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0.9, "0s"),
        (59, "59s"),
        (60, "1m"),
        (599, "9m"),
        (3600, "1h"),
        (12_000, "3h 20m"),
        (90_000, "1d 1h"),
    ],
)
def test_a_length_of_time_is_told_in_its_largest_units(seconds: float, text: str) -> None:
    assert length(seconds) == text


def test_a_table_has_its_columns_under_one_another_and_a_line_for_each_row() -> None:
    assert lay_out(("A", "BB"), [("xyz", "1"), ("a\nb", "")]).splitlines() == ["A     BB", "xyz   1", "a\\nb"]
