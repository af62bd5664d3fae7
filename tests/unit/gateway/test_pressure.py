"""Which requests are refused because they would wait for too long."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from kitemesh_contracts.commands import Route, StartTurn
from kitemesh_contracts.errors import Busy, ErrorCode
from kitemesh_contracts.topology import MODEL, lane_of
from kitemesh_gateway.pressure import Pressure, check_wait
from kitemesh_runtime.fleet import RETRY_LEAST_S, RETRY_MOST_S


@pytest.mark.requirement("pressure:refused-at-once")
@pytest.mark.parametrize(
    ("predicted_s", "max_wait_s"),
    [(None, None), (None, 0.0), (0.0, 0.0), (300.0, None), (10.0, 10.0), (10.0, 1000.0)],
    ids=["unknown", "unknown, in haste", "at once", "just so", "as long as it said", "the installation's bound"],
)
def test_what_may_wait_for_so_long_is_taken_in(predicted_s: float | None, max_wait_s: float | None) -> None:
    check_wait(predicted_s, max_wait_s=max_wait_s, bound_s=300.0)


@pytest.mark.requirement("pressure:refused-at-once")
@pytest.mark.parametrize(
    ("predicted_s", "max_wait_s", "retry_s"),
    [
        (12.0, 2.0, 10.0),
        (0.3, 0.2, RETRY_LEAST_S),
        (305.0, None, 5.0),
        (1000.0, 3600.0, RETRY_MOST_S),
    ],
    ids=["its own bound", "never sooner than a second", "the installation's bound", "never later than a minute"],
)
def test_what_would_wait_for_longer_is_refused_and_told_when_to_come_again(
    predicted_s: float, max_wait_s: float | None, retry_s: float
) -> None:
    with pytest.raises(Busy) as caught:
        check_wait(predicted_s, max_wait_s=max_wait_s, bound_s=300.0)
    assert caught.value.code == ErrorCode.QUEUE_FULL
    assert caught.value.retry_after_s == retry_s


class Forecast:
    """Stands for the fleet, and notes what it was asked."""

    def __init__(self, predicted_s: float) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.predicted_s = predicted_s

    def predicted_wait_s(self, *names: str, **which: object) -> float:
        self.asked.append((*names, *sorted(which.items())))
        return self.predicted_s


@pytest.mark.requirement("pressure:refused-at-once")
def test_a_turn_is_judged_by_the_queue_that_it_would_wait_in() -> None:
    forecast = Forecast(5.0)
    catalog = SimpleNamespace(current=SimpleNamespace(pools=SimpleNamespace(model={"p": SimpleNamespace(lanes=16)})))
    pressure = Pressure(cast("Any", forecast), cast("Any", catalog), max_wait_s=300.0)
    start = StartTurn(
        turn="t",
        tenant="acme",
        gateway="g",
        mode="classic",
        route=Route(requested="m", models=("m",), pool="p"),
        input=(),
        accepted_at_ms=0,
        budget_s=600.0,
        priority="batch",
        max_wait_s=2.0,
    )
    with pytest.raises(Busy) as caught:
        pressure.check(start)
    assert caught.value.retry_after_s == 3.0
    assert forecast.asked == [(MODEL, "p", ("lane", lane_of("acme", 16)), ("priority", "batch"))]
    forecast.predicted_s = 2.0
    pressure.check(start)
