"""Which attempt a delivery works under: table by number of deliveries, and the store's answers."""

from typing import Any, NamedTuple

import msgspec
import pytest

from kitemesh_contracts.commands import Generate
from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_contracts.topology import WORKER_DELIVERIES_MAX
from kitemesh_model_runner.fence import Fence, Standing
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.execution_stores import Job, LiveTurn
from kitemesh_runtime.live_turns_memory import MemoryLiveTurns
from kitemesh_runtime.stores import TurnRecord

JOB = Generate(
    turn="t",
    tenant="acme",
    gateway="g",
    mode="durable",
    step=2,
    attempt=1,
    models=("m",),
    messages=(),
    budget_s=1.0,
    stored=True,
)
OUTSTANDING = Job(kind="model", step=2, attempt=1, pool="p")


class Delivery(NamedTuple):
    """As much of one as the fence looks at."""

    deliveries: int
    subject: str = "s"
    sequence: int = 7


class FaultyLiveTurns(MemoryLiveTurns):
    """The twin, whose claims may be carried out and then time out, or not be carried out."""

    def __init__(self) -> None:
        super().__init__(SystemClock(), {})
        self.faults: list[str] = []
        self.asked: list[str] = []

    async def claim(self, tenant: str, turn: str, job: Job) -> bool:
        self.asked.append(f"claim {job.attempt}")
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "refuse":
            raise Unavailable(ErrorCode.STORE_DOWN, "down")
        won = await super().claim(tenant, turn, job)
        if fault == "time out":
            raise Unavailable(ErrorCode.STORE_DOWN, "no answer")
        return won

    async def get(self, tenant: str, turn: str) -> LiveTurn | TurnRecord | None:
        self.asked.append("get")
        return await super().get(tenant, turn)

    async def attempt(self) -> int:
        """Return the outstanding job's attempt."""
        turn = await MemoryLiveTurns.get(self, "acme", "t")
        assert isinstance(turn, LiveTurn)
        return turn.jobs[0].attempt


@pytest.fixture
def store() -> FaultyLiveTurns:
    return FaultyLiveTurns()


async def keep(store: FaultyLiveTurns, *jobs: Job) -> None:
    turn = LiveTurn(
        id="t", tenant="acme", version=1, status="running", mode="durable", model="m", state=b"{}", jobs=jobs
    )
    await store.insert("acme", turn)


async def ask(fence: Fence, deliveries: int, sequence: int = 7, **changes: Any) -> Standing:
    return await fence.attempt(
        msgspec.structs.replace(JOB, **changes),
        Delivery(deliveries, sequence=sequence),  # type: ignore[arg-type]  # it is only looked at
    )


@pytest.mark.requirement("attempt:redelivery-has-a-number-of-its-own")
@pytest.mark.parametrize(("deliveries", "number"), [(1, 3), (2, 4), (4, 6)])
async def test_a_classic_job_works_under_its_number_of_deliveries_and_asks_nobody(
    store: FaultyLiveTurns, deliveries: int, number: int
) -> None:
    assert await ask(Fence(store, pool="p"), deliveries, attempt=3, stored=False) == number
    assert store.asked == []


async def test_a_first_delivery_claims_nothing(store: FaultyLiveTurns) -> None:
    assert await ask(Fence(store, pool="p"), 1, attempt=3) == 3
    assert store.asked == []


async def test_a_redelivered_stored_job_claims_the_next_attempt_once(store: FaultyLiveTurns) -> None:
    await keep(store, OUTSTANDING)
    fence = Fence(store, pool="p")
    assert [await ask(fence, 2), await ask(fence, 2)] == [2, 2]
    assert store.asked == ["claim 1"]
    assert await store.attempt() == 2


async def test_the_same_delivery_at_another_worker_is_too_late(store: FaultyLiveTurns) -> None:
    await keep(store, OUTSTANDING)
    assert await ask(Fence(store, pool="p"), 2) == 2
    assert await ask(Fence(store, pool="p"), 2) == "elsewhere"


@pytest.mark.parametrize(
    ("jobs", "standing"),
    [
        ((), "over"),
        ((msgspec.structs.replace(OUTSTANDING, attempt=2),), "elsewhere"),
        ((msgspec.structs.replace(OUTSTANDING, step=3),), "over"),
        ((msgspec.structs.replace(OUTSTANDING, kind="tool"),), "over"),
        ((msgspec.structs.replace(OUTSTANDING, index=1),), "over"),
    ],
    ids=["answered", "a newer attempt", "a later step", "tools", "another job of the step"],
)
async def test_a_job_that_is_no_longer_current_is_not_worked_on(
    store: FaultyLiveTurns, jobs: tuple[Job, ...], standing: str
) -> None:
    await keep(store, *jobs)
    assert await ask(Fence(store, pool="p"), 2) == standing


async def test_behind_the_last_delivery_there_is_no_newer_one(
    store: FaultyLiveTurns, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keep(store, OUTSTANDING)
    original = store.get

    async def get(tenant: str, turn: str) -> LiveTurn | TurnRecord | None:
        found = await original(tenant, turn)
        # Another delivery is faster.
        await MemoryLiveTurns.claim(store, "acme", "t", OUTSTANDING)
        return found

    monkeypatch.setattr(store, "get", get)
    assert await ask(Fence(store, pool="p"), WORKER_DELIVERIES_MAX) == "over"


async def test_a_refused_claim_is_not_taken_for_one_without_an_answer(
    store: FaultyLiveTurns, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keep(store, msgspec.structs.replace(OUTSTANDING, attempt=2))
    fence = Fence(store, pool="p")

    async def get(tenant: str, turn: str) -> LiveTurn | TurnRecord | None:
        raise Unavailable(ErrorCode.STORE_DOWN, "down")

    with monkeypatch.context() as patch:
        patch.setattr(store, "get", get)
        with pytest.raises(Unavailable):
            await ask(fence, 2)
    assert await ask(fence, 2) == "elsewhere"
    assert await store.attempt() == 2


@pytest.mark.parametrize("deliveries", [2, 3])
async def test_a_turn_that_nobody_knows_is_not_worked_on(store: FaultyLiveTurns, deliveries: int) -> None:
    assert await ask(Fence(store, pool="p"), deliveries) == "over"


async def test_a_turn_that_has_ended_is_not_worked_on(store: FaultyLiveTurns) -> None:
    await keep(store, OUTSTANDING)
    ended = TurnRecord(id="t", tenant="acme", status="failed", mode="durable", model="m")
    await store.finish("acme", ended, version=1)
    assert [await ask(Fence(store, pool="p"), deliveries) for deliveries in (2, 3)] == ["over"] * 2


async def test_another_tenants_turn_is_not_worked_on(store: FaultyLiveTurns) -> None:
    await keep(store, OUTSTANDING)
    assert [await ask(Fence(store, pool="p"), deliveries, tenant="evil") for deliveries in (2, 3)] == ["over"] * 2


@pytest.mark.parametrize("stored", [1, 2, 5])
async def test_a_third_delivery_claims_from_the_attempt_that_the_turn_names(
    store: FaultyLiveTurns, stored: int
) -> None:
    tool = Job(kind="tool", step=2, attempt=9, pool="x")
    await keep(store, tool, msgspec.structs.replace(OUTSTANDING, attempt=stored))
    fence = Fence(store, pool="p")
    assert [await ask(fence, 3), await ask(fence, 3)] == [stored + 1] * 2
    assert store.asked == ["get", f"claim {stored}"]


async def test_a_third_delivery_of_an_answered_job_is_not_worked_on(store: FaultyLiveTurns) -> None:
    await keep(store, msgspec.structs.replace(OUTSTANDING, step=3))
    assert await ask(Fence(store, pool="p"), 3) == "over"


@pytest.mark.parametrize(("fault", "attempt"), [("refuse", 2), ("time out", 3)])
@pytest.mark.parametrize("deliveries", [2, 3])
async def test_a_claim_without_an_answer_is_asked_for_again_from_where_it_stands(
    store: FaultyLiveTurns, fault: str, attempt: int, deliveries: int
) -> None:
    await keep(store, OUTSTANDING)
    store.faults = [fault]
    fence = Fence(store, pool="p")
    with pytest.raises(Unavailable):
        await ask(fence, deliveries)
    assert await ask(fence, deliveries) == attempt
    assert await store.attempt() == attempt


async def test_what_is_done_with_is_forgotten(store: FaultyLiveTurns) -> None:
    await keep(store, OUTSTANDING)
    fence = Fence(store, pool="p")
    await ask(fence, 2)
    fence.forget(Delivery(2))  # type: ignore[arg-type]  # it is only looked at
    assert await ask(fence, 2) == "elsewhere"


async def test_what_is_remembered_is_bounded(store: FaultyLiveTurns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kitemesh_model_runner.fence.REMEMBERED_MAX", 2)
    await keep(store, OUTSTANDING)
    fence = Fence(store, pool="p")
    assert [await ask(fence, 3, sequence) for sequence in (1, 2, 3)] == [2, 3, 4]
    # The oldest was pushed out and claims again, the newest is still known.
    assert [await ask(fence, 3, sequence) for sequence in (3, 1)] == [4, 5]
