from collections.abc import Sequence
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitemesh_gateway.dialects.base import Mistakes
from kitemesh_gateway.usage_query import UsageQuery, cursor_behind, read_usage_query
from kitemesh_runtime.usage import Period

TODAY = date(2026, 11, 22)


class Asked:
    """The query of a request."""

    def __init__(self, **given: str | Sequence[str]) -> None:
        self._given = {name.rstrip("_"): [value] if isinstance(value, str) else value for name, value in given.items()}

    def getall(self, key: str, default: Sequence[str], /) -> Sequence[str]:
        return self._given.get(key, default)


def read(**given: str | Sequence[str]) -> UsageQuery:
    return read_usage_query(Asked(**given), TODAY)


def wrong(**given: str | Sequence[str]) -> dict[str, str]:
    with pytest.raises(Mistakes) as raised:
        read(**given)
    return {mistake.field: mistake.what for mistake in raised.value.mistakes}


def test_without_a_word_it_is_the_last_thirty_days() -> None:
    assert read() == UsageQuery(Period(date(2026, 10, 24), TODAY), "day", None, None, 20)


def test_days_are_read_and_the_last_one_counts() -> None:
    assert read(from_="2026-11-01", to="2026-11-01").period == Period(date(2026, 11, 1), date(2026, 11, 1))
    assert read(to="2026-02-10").period == Period(date(2026, 1, 12), date(2026, 2, 10))
    assert read(from_="2026-11-20").period == Period(date(2026, 11, 20), TODAY)
    assert read(from_="2026-12-24").period == Period(date(2026, 12, 24), date(2026, 12, 24))


def test_every_mistake_is_told_at_once() -> None:
    assert wrong(from_="2026-13-01", to="20261101", by="weather", tenant="*", cursor="zz", limit="0").keys() == {
        "from",
        "to",
        "by",
        "tenant",
        "cursor",
        "limit",
    }
    assert wrong(by=["day", "key"]) == {"by": "must be given once"}
    assert wrong(from_="2026-11-02", to="2026-11-01") == {"from": "must not be after `to`"}
    assert "400 days" in wrong(from_="2020-01-01")["from"]
    assert wrong(by="tenant", tenant="a") == {"tenant": "must not be given with by=tenant"}


@pytest.mark.parametrize("day", ["", "2026-1-01", "2026-W10-1", "9999-12-31", "1969-12-31", "\uff12026-01-01"])
def test_what_is_no_day_is_refused(day: str) -> None:
    assert "from" in wrong(from_=day)


@given(st.text(max_size=60))
def test_a_cursor_stands_for_the_name_of_a_row(name: str) -> None:
    assert read(cursor=cursor_behind(name), by="model").after == name


@given(st.from_regex(r"\A([0-9a-f]{2}){1,256}\Z"))
def test_whatever_looks_like_a_cursor_is_one(cursor: str) -> None:
    assert read(cursor=cursor).after is not None
