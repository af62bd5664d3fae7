"""When a failed call is run again."""

import pytest

from kitemesh_contracts.errors import ErrorCode
from kitemesh_tool_executor.retries import TRIES_MAX, pause_s
from kitemesh_tool_executor.tool import CallFailed


def failed(*, again: bool = True, retry_after_s: float | None = None) -> CallFailed:
    return CallFailed(ErrorCode.TOOL_FAILED, "x", sent=True, again=again, retry_after_s=retry_after_s)


def test_pauses_grow_and_are_spread() -> None:
    assert [pause_s(n, failed(), left_s=60, chance=0.0) for n in (1, 2)] == [0.1, 0.2]
    assert pause_s(1, failed(), left_s=60, chance=1.0) == 0.2


def test_it_is_run_three_times_at_the_most() -> None:
    assert pause_s(TRIES_MAX, failed(), left_s=60, chance=0.0) is None


def test_what_cannot_succeed_is_not_run_again() -> None:
    assert pause_s(1, failed(again=False), left_s=60, chance=0.0) is None


@pytest.mark.parametrize(("asked_s", "left_s", "pause"), [(3.0, 60.0, 3.0), (3.0, 2.0, None), (0.0, 2.0, 0.0)])
def test_what_the_tool_asked_for_is_never_undercut_and_never_beyond_the_time(
    asked_s: float, left_s: float, pause: float | None
) -> None:
    assert pause_s(1, failed(retry_after_s=asked_s), left_s=left_s, chance=0.0) == pause
