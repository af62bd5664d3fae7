import pytest
from multidict import CIMultiDict

from kitemesh_model_runner.retries import FIRST_PAUSE_S, LONGEST_PAUSE_S, pause_s, retry_after_s

NOW_S = 1_445_412_480.0  # Wed, 21 Oct 2015 07:28:00 GMT


@pytest.mark.requirement("provider:retry-after-is-honoured")
@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Retry-After": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"Retry-After-Ms": "250", "Retry-After": "9"}, 0.25),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:05 GMT"}, 5.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:05 -0000"}, 5.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:27:00 GMT"}, 0.0),
        ({"Retry-After": "-1"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "Wed, 99 Oct 2015 07:28:05 GMT"}, None),
    ],
)
def test_what_an_upstream_asks_for_is_understood(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_s(CIMultiDict(headers), now_s=NOW_S) == expected


def test_pauses_double_up_to_a_bound() -> None:
    pauses = [pause_s(number, None, chance=1.0) for number in range(1, 9)]
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
def test_a_pause_is_spread_but_never_less_than_asked(chance: float) -> None:
    assert FIRST_PAUSE_S / 2 <= pause_s(1, None, chance=chance) <= FIRST_PAUSE_S
    assert 3.0 <= pause_s(1, 3.0, chance=chance) <= 3.3
