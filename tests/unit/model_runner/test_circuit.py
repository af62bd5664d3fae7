import pytest

from kitemesh_contracts.errors import ErrorCode, ProviderFailed
from kitemesh_model_runner.breaker import IN_A_ROW, OPEN_S
from kitemesh_model_runner.circuit import FAILURES, LONGEST_REST_S, Circuit, Obstacle

LIMITED = ErrorCode.UPSTREAM_LIMITED
UNREACHABLE = ErrorCode.UPSTREAM_UNREACHABLE


def failure(code: ErrorCode, retry_after_s: float | None = None) -> ProviderFailed:
    return ProviderFailed(code, "words", retry_after_s=retry_after_s)


def call(circuit: Circuit, now_s: float, failed: ProviderFailed | None) -> None:
    ticket = circuit.enter(now_s)
    assert ticket is not None
    circuit.leave(ticket, now_s, failed)


@pytest.fixture
def circuit() -> Circuit:
    return Circuit("p", "m", lambda: 0.0)


@pytest.mark.parametrize("code", [each for each in ErrorCode if each.startswith("upstream.")])
def test_only_what_speaks_against_the_upstream_opens_it(circuit: Circuit, code: ErrorCode) -> None:
    for _ in range(IN_A_ROW):
        call(circuit, 0.0, failure(code))
    if code in FAILURES:
        assert circuit.obstacle(0.0) == Obstacle("open", UNREACHABLE, OPEN_S)
        assert circuit.enter(0.0) is None
    else:
        assert circuit.obstacle(0.0) is None
    expected = {"upstream.unreachable", "upstream.failed", "upstream.timeout", "upstream.cut"}
    assert {each.value for each in FAILURES} == expected


def test_what_says_nothing_leaves_room_for_the_next_probe(circuit: Circuit) -> None:
    for _ in range(IN_A_ROW):
        call(circuit, 0.0, failure(UNREACHABLE))
    for failed in (failure(ErrorCode.UPSTREAM_REFUSED), failure(LIMITED), failure(ErrorCode.UPSTREAM_CONTEXT)):
        call(circuit, OPEN_S, failed)
    ticket = circuit.enter(OPEN_S)
    assert ticket is not None
    assert circuit.obstacle(OPEN_S) is not None
    circuit.drop(ticket)
    call(circuit, OPEN_S, None)
    assert circuit.state(OPEN_S) == "closed"


@pytest.mark.requirement("routing:cooling")
@pytest.mark.parametrize(
    ("code", "told"), [(LIMITED, LIMITED), (ErrorCode.UPSTREAM_FAILED, UNREACHABLE)], ids=["429", "503"]
)
def test_an_upstream_that_asks_for_rest_gets_it(circuit: Circuit, code: ErrorCode, told: ErrorCode) -> None:
    call(circuit, 0.0, failure(code, 3.0))
    assert circuit.obstacle(1.0) == Obstacle("cooling", told, 2.0)
    assert circuit.enter(2.9) is None
    assert circuit.state(1.0) == "closed"
    assert circuit.obstacle(3.0) is None
    assert circuit.enter(3.0) is not None


def test_who_waited_as_long_as_was_asked_for_may_begin_the_next_try_at_once(circuit: Circuit) -> None:
    call(circuit, 0.0, failure(LIMITED, 3.0))
    assert circuit.enter(0.0, rested=True) is not None


def test_the_longest_rest_of_calls_that_began_together_counts(circuit: Circuit) -> None:
    tickets = [circuit.enter(0.0) for _ in range(3)]
    for ticket, asked_s in zip(tickets, (2.0, 9.0, 1.0), strict=True):
        assert ticket is not None
        circuit.leave(ticket, 0.0, failure(LIMITED, asked_s))
    assert circuit.obstacle(0.0) == Obstacle("cooling", LIMITED, 9.0)


def test_a_rest_of_hours_is_told_and_not_waited_for(circuit: Circuit) -> None:
    call(circuit, 0.0, failure(LIMITED, 7200.0))
    assert circuit.obstacle(100.0) == Obstacle("cooling", LIMITED, 7100.0)
    assert circuit.obstacle(LONGEST_REST_S) is None
    call(circuit, LONGEST_REST_S, failure(LIMITED, 6000.0))
    assert circuit.obstacle(LONGEST_REST_S) == Obstacle("cooling", LIMITED, 6000.0)


def test_the_later_of_an_open_time_and_a_rest_is_told(circuit: Circuit) -> None:
    for _ in range(IN_A_ROW - 1):
        call(circuit, 0.0, failure(UNREACHABLE))
    call(circuit, 0.0, failure(ErrorCode.UPSTREAM_FAILED, 1.0))
    assert circuit.obstacle(0.0) == Obstacle("cooling", UNREACHABLE, OPEN_S)
    assert circuit.obstacle(1.0) == Obstacle("open", UNREACHABLE, OPEN_S - 1.0)


def test_what_runs_inside_this_process_is_asked_whatever_comes_of_it() -> None:
    circuit = Circuit("p", "m", None)
    for _ in range(100):
        call(circuit, 0.0, failure(ErrorCode.UPSTREAM_FAILED, 60.0))
    assert circuit.obstacle(0.0) is None
    assert circuit.state(0.0) == "closed"
    circuit.drop(0)
