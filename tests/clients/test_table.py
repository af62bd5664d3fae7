"""The table that the suite prints."""

from clients.table import FAILED, OK, Cell, render

NEW, OLD = ("client", "2.0"), ("client", "1.0")


def test_each_family_has_a_table_and_the_fullest_client_leads() -> None:
    cells = [
        Cell("/b", "asked", ("curl", ""), OK),
        Cell("/v1", "streamed", OLD, OK),
        Cell("/v1", "whole", NEW, OK),
        Cell("/v1", "streamed", NEW, FAILED),
    ]
    assert render(cells) == [
        "",
        "/v1       client  client",
        "          2.0     1.0",
        "------------------------",
        "whole     ok      ·",
        "streamed  FAILED  ok",
        "",
        "/b     curl",
        "-----------",
        "asked  ok",
    ]


def test_a_case_of_several_tests_is_as_good_as_the_worst() -> None:
    cells = [Cell("/v1", "whole", NEW, outcome) for outcome in (OK, FAILED, OK)]
    assert render(cells)[-1].split() == ["whole", FAILED]


def test_nothing_that_was_tested_is_no_table() -> None:
    assert render([]) == []
