import argparse

import pytest

from kitemesh_cli.arguments import identifier, lifetime_s


@pytest.mark.parametrize(
    ("text", "seconds"), [("1s", 1), ("90m", 5400), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600)]
)
def test_a_lifetime_is_a_number_with_its_unit(text: str, seconds: float) -> None:
    assert lifetime_s(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "0d", "-1d", "1.5h", "30 d", "30y", "30d\n", "9999999999d"])
def test_what_is_no_lifetime_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        lifetime_s(text)


@pytest.mark.parametrize("text", ["", "a b", "a.b", "*", "x" * 65, "é", "a\n"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        identifier(text)
