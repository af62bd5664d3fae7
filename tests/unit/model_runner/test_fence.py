"""Which attempt a delivery works under: table by number of deliveries, and the store's answers."""

from typing import Any, NamedTuple

import msgspec
import pytest

from kitemesh_contracts.commands import Generate
from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_contracts.topology import WORKER_DELIVERIES_MAX
from kitemesh_model_runner.fence import Fence, Standing
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.live_turns import Job, LiveTurn
from kitemesh_runtime.live_turns_memory import MemoryLiveTurns
from kitemesh_runtime.turns import TurnRecord

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
CLAIMED = Job(kind="model", step=2, attempt=2, pool="p", message=7, deliveries=2)


class Delivery(NamedTuple):
    """As much of one as the fence looks at."""

    deliveries: int
    subject: str = "s"
    sequence: int = 7


class FaultyLiveTurns(MemoryLiveTurns):
    """The twin, whose claims may be carried out and then time out, or not be carried out."""

    def __init__(self) -> None:
        super().__init__(SystemClock(), {}, lambda _: None)
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
    assert await ask(Fence(store, pool="p"), 1) == 1
    assert store.asked == []


@pytest.mark.parametrize(
    ("outstanding", "standing"),
    [
        ((Job(kind="model", step=2, attempt=2, pool="p"),), 2),
        ((CLAIMED,), "over"),
        ((Job(kind="model", step=2, attempt=3, pool="p"),), "over"),
        ((), "over"),
    ],
)
async def test_the_first_delivery_of_a_job_published_again_is_dropped_if_its_attempt_is_a_workers(
    store: FaultyLiveTurns, outstanding: tuple[Job, ...], standing: Standing
) -> None:
    await keep(store, *outstanding)
    assert await ask(Fence(store, pool="p"), 1, sequence=9, attempt=2) == standing
    assert store.asked == ["get"]


async def test_a_redelivered_stored_job_claims_the_next_attempt_once(store: FaultyLiveTurns) -> None:
    await keep(store, OUTSTANDING)
    fence = Fence(store, pool="p")
    assert [await ask(fence, 2), await ask(fence, 2)] == [2, 2]
    assert store.asked == ["get", "claim 1"]
    assert await store.attempt() == 2


async def test_the_same_delivery_at_another_worker_is_too_late(store: FaultyLiveTurns) -> None:
    await keep(store, OUTSTANDING)
    assert await ask(Fence(store, pool="p"), 2) == 2
    assert await ask(Fence(store, pool="p"), 2) == "elsewhere"


@pytest.mark.parametrize(
    ("jobs", "standing"),
    [
        ((), "over"),
        ((CLAIMED,), "elsewhere"),
        ((msgspec.structs.replace(CLAIMED, deliveries=3),), "elsewhere"),
        ((msgspec.structs.replace(CLAIMED, message=8),), "over"),
        ((msgspec.structs.replace(OUTSTANDING, attempt=2),), "over"),
        ((msgspec.structs.replace(OUTSTANDING, step=3),), "over"),
        ((msgspec.structs.replace(OUTSTANDING, kind="tool"),), "over"),
        ((msgspec.structs.replace(OUTSTANDING, index=1),), "over"),
    ],
    ids=[
        "answered",
        "claimed by the same delivery",
        "claimed by a later one",
        "claimed by a later message",
        "published again",
        "a later step",
        "tools",
        "another job of the step",
    ],
)
async def test_a_job_that_is_no_longer_current_is_not_worked_on(
    store: FaultyLiveTurns, jobs: tuple[Job, ...], standing: str
) -> None:
    await keep(store, *jobs)
    assert await ask(Fence(store, pool="p"), 2) == standing


async def test_behind_the_last_delivery_there_is_no_newer_one(store: FaultyLiveTurns) -> None:
    await keep(store, msgspec.structs.replace(CLAIMED, deliveries=WORKER_DELIVERIES_MAX))
    assert await ask(Fence(store, pool="p"), WORKER_DELIVERIES_MAX) == "over"


async def test_a_claim_that_another_delivery_won_meanwhile_is_refused(
    store: FaultyLiveTurns, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keep(store, OUTSTANDING)
    original = store.get
    fence = Fence(store, pool="p")

    async def get(tenant: str, turn: str) -> LiveTurn | TurnRecord | None:
        found = await original(tenant, turn)
        # Another delivery is faster.
        await MemoryLiveTurns.claim(store, "acme", "t", msgspec.structs.replace(OUTSTANDING, message=7, deliveries=3))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(store, "get", get)
        assert await ask(fence, 2) == "elsewhere"
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


@pytest.mark.parametrize("current", [OUTSTANDING, CLAIMED, msgspec.structs.replace(CLAIMED, attempt=5)])
async def test_a_third_delivery_claims_from_where_an_earlier_one_left_off(store: FaultyLiveTurns, current: Job) -> None:
    await keep(store, Job(kind="tool", step=2, attempt=9, pool="x"), current)
    fence = Fence(store, pool="p")
    assert [await ask(fence, 3), await ask(fence, 3)] == [current.attempt + 1] * 2
    assert store.asked == ["get", f"claim {current.attempt}"]


@pytest.mark.parametrize("deliveries", [2, 3])
async def test_an_old_message_claims_nothing_over_the_one_that_was_published_again(
    store: FaultyLiveTurns, deliveries: int
) -> None:
    await keep(store, msgspec.structs.replace(OUTSTANDING, attempt=2))
    assert await ask(Fence(store, pool="p"), deliveries) == "over"
    # What was published again is another message, and claims from there.
    assert await ask(Fence(store, pool="p"), deliveries, sequence=8, attempt=2) == 3
    assert await ask(Fence(store, pool="p"), deliveries + 1) == "over"
    assert await store.attempt() == 3


async def test_an_older_delivery_claims_nothing_over_a_newer_one(store: FaultyLiveTurns) -> None:
    await keep(store, OUTSTANDING)
    assert await ask(Fence(store, pool="p"), 4) == 2
    assert await ask(Fence(store, pool="p"), 3) == "elsewhere"
    assert await store.attempt() == 2


async def test_a_third_delivery_of_an_answered_job_is_not_worked_on(store: FaultyLiveTurns) -> None:
    await keep(store, msgspec.structs.replace(OUTSTANDING, step=3))
    assert await ask(Fence(store, pool="p"), 3) == "over"


@pytest.mark.parametrize("fault", ["refuse", "time out"])
@pytest.mark.parametrize("deliveries", [2, 3])
async def test_a_claim_without_an_answer_is_looked_for_before_it_is_made_again(
    store: FaultyLiveTurns, fault: str, deliveries: int
) -> None:
    await keep(store, OUTSTANDING)
    store.faults = [fault]
    fence = Fence(store, pool="p")
    with pytest.raises(Unavailable):
        await ask(fence, deliveries)
    assert await ask(fence, deliveries) == 2
    assert await store.attempt() == 2


@pytest.mark.parametrize("fault", ["refuse", "time out"])
async def test_a_spent_attempt_is_not_taken_for_the_claim_whose_answer_was_lost(
    store: FaultyLiveTurns, fault: str
) -> None:
    await keep(store, OUTSTANDING)
    fence = Fence(store, pool="p")
    assert await ask(fence, 2) == 2
    fence.spend(Delivery(2), 2)  # type: ignore[arg-type]  # it is only looked at
    store.faults = [fault]
    with pytest.raises(Unavailable):
        await ask(fence, 2)
    assert await ask(fence, 2) == 3
    assert await store.attempt() == 3


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
    assert [await ask(fence, deliveries) for deliveries in (2, 3, 4)] == [2, 3, 4]
    # The oldest was pushed out and is asked for again, the newest is still known.
    store.asked.clear()
    assert [await ask(fence, deliveries) for deliveries in (4, 2)] == [4, "elsewhere"]
    assert store.asked == ["get"]


@pytest.mark.parametrize("deliveries", [1, 2])
async def test_an_attempt_that_broke_off_after_its_first_frame_is_not_worked_under_again(
    store: FaultyLiveTurns, deliveries: int
) -> None:
    await keep(store, OUTSTANDING)
    fence = Fence(store, pool="p")
    number = await ask(fence, deliveries)
    assert isinstance(number, int)
    fence.spend(Delivery(deliveries), number)  # type: ignore[arg-type]  # it is only looked at
    assert [await ask(fence, deliveries), await ask(fence, deliveries)] == [number + 1] * 2
    assert await store.attempt() == number + 1


async def test_an_attempt_that_broke_off_does_not_claim_over_whoever_claimed_meanwhile(store: FaultyLiveTurns) -> None:
    await keep(store, OUTSTANDING)
    fence = Fence(store, pool="p")
    fence.spend(Delivery(1), 1)  # type: ignore[arg-type]  # it is only looked at
    assert await ask(Fence(store, pool="p"), 2) == 2
    assert await ask(fence, 1) == "elsewhere"
    assert await store.attempt() == 2


async def lost(fence: Fence, number: int, deliveries: int = 1) -> object:
    return await fence.lost("acme", "t", 2, number, Delivery(deliveries))  # type: ignore[arg-type]  # it is only looked at


@pytest.mark.parametrize(
    ("jobs", "deliveries", "answer"),
    [
        ((OUTSTANDING,), 1, None),
        ((CLAIMED,), 1, "elsewhere"),
        ((CLAIMED,), WORKER_DELIVERIES_MAX, "over"),
        ((msgspec.structs.replace(OUTSTANDING, attempt=2),), 1, "over"),
        ((msgspec.structs.replace(OUTSTANDING, step=3),), 1, "over"),
        ((), 1, "over"),
    ],
    ids=["the same", "claimed by a later delivery", "no newer delivery", "published again", "a later step", "answered"],
)
async def test_an_attempt_under_way_counts_while_the_turn_names_it(
    store: FaultyLiveTurns, jobs: tuple[Job, ...], deliveries: int, answer: object
) -> None:
    await keep(store, *jobs)
    assert await lost(Fence(store, pool="p"), 1, deliveries) == answer
