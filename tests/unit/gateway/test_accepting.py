"""Accepting durable turns on the stores' twins: what is stored, in which order, and what each failure leaves behind."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

import pytest
from msgspec.structs import replace

from kitemesh_contracts import codec, subjects
from kitemesh_contracts.commands import Mode, Route, StartTurn
from kitemesh_contracts.content import AssistantMessage, FilePart, Sampling, Step, TextPart, UserMessage
from kitemesh_contracts.errors import (
    BadRequest,
    Busy,
    Conflict,
    ErrorCode,
    ErrorInfo,
    KitemeshError,
    NotFound,
    Unavailable,
)
from kitemesh_gateway import accepting
from kitemesh_gateway.accepting import Accepting, queued
from kitemesh_gateway.auth import Principal
from kitemesh_gateway.dialects.base import TurnRequest, WantedMode
from kitemesh_gateway.idempotency import Key, claimed_as
from kitemesh_gateway.keeping import Keeping
from kitemesh_gateway.message_ids import MessageIds
from kitemesh_gateway.turns import Turns
from kitemesh_gateway.watches import Watched
from kitemesh_runtime.bus import Receipt
from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.live_turns import Job, LiveTurn
from kitemesh_runtime.parcels import Parcels
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_memory import memory_stores
from kitemesh_runtime.turns import TurnRecord
from unit.gateway.holding import handle
from unit.gateway.rig import ManualClock, Screen

TENANT = "acme"
CATALOG = Catalog.model_validate(
    {
        "providers": {"p": {"kind": "scripted"}},
        "models": {"m": {"provider": "p"}},
        "agents": {"brief": {"model": "m"}, "lasting": {"model": "m", "mode": "durable"}},
    }
)
PRINCIPAL = Principal(tenant=TENANT, key="key-1", scopes=frozenset({"chat"}))
BODY = b'{"model":"m"}'


class Queue:
    """The bus as far as accepting goes."""

    def __init__(self) -> None:
        self.connected = True
        self.error: KitemeshError | None = None
        self.starts: list[tuple[str, str, StartTurn]] = []
        self.news: list[str] = []
        self.sent = asyncio.Event()

    def post(self, subject: str, _: bytes) -> None:
        self.news.append(subject.removeprefix(f"km.v1.feed.{TENANT}."))

    async def send(self, subject: str, payload: bytes, *, msg_id: str, timeout_s: float = 2.5) -> Receipt:
        if self.error is not None:
            raise self.error
        start = codec.decode(codec.START, payload)
        assert isinstance(start, StartTurn)
        self.starts.append((subject, msg_id, start))
        self.sent.set()
        return Receipt(len(self.starts), duplicate=False)


class Desk:
    """The relay as far as accepting goes."""

    def __init__(self) -> None:
        self.open_now: list[Watched] = []
        self.seen: list[Watched] = []
        self.disowned: list[str] = []

    def disown(self, turn: str) -> None:
        self.disowned.append(turn)

    @property
    def readers(self) -> int:
        return len(self.open_now)

    def open(self, watched: Watched, _: object) -> Watched:
        self.open_now.append(watched)
        self.seen.append(watched)
        return watched

    def close(self, watched: Watched) -> bool:
        self.open_now.remove(watched)
        return True


class Gateway:
    """One gateway over stores that others may share."""

    def __init__(self, stores: Stores, clock: ManualClock, replica: str = "gw") -> None:
        self.queue, self.desk, self.clock, self.stores = Queue(), Desk(), clock, stores
        bus, relay = cast("Any", self.queue), cast("Any", self.desk)
        self.turns = Turns(
            replica=replica,
            bus=bus,
            parcels=Parcels(stores.blobs),
            relay=relay,
            conversations=stores.conversations,
            message_ids=MessageIds(stores.claims, stores.live_turns),
            catalog=handle(CATALOG),
            clock=clock,
            store_state=up(),
            budget_s=600,
            max_open=10,
        )
        self.accepting = Accepting(
            self.turns,
            stores.live_turns,
            stores.claims,
            stores.conversations,
            message_ids=MessageIds(stores.claims, stores.live_turns),
            keeping=Keeping(stores.blobs),
            bus=bus,
            relay=relay,
            clock=clock,
        )

    def start(self, **fields: Any) -> StartTurn:
        asked = request(**fields)
        route = self.turns.route(PRINCIPAL, asked)
        return self.turns.accept(PRINCIPAL, asked, route, mode="durable", request_id="req_1", dialect="completions")

    async def accept(self, start: StartTurn, key: Key | None = None) -> object:
        """Store a turn and publish its start as a background run does."""
        stored = await self.accepting.store(start, key)
        if isinstance(stored, StartTurn):
            await self.accepting.publish(stored, key)
        return stored


def request(**fields: Any) -> TurnRequest:
    values: dict[str, Any] = {
        "model": "m",
        "messages": (UserMessage(parts=(TextPart(text="Hi"),)),),
        "sampling": Sampling(),
        "stream": True,
        "include_usage": True,
        **fields,
    }
    return TurnRequest(**values)


def up() -> Dependency:
    state = Dependency("mongodb")
    state.mark_up()
    return state


def keyed(body: bytes = BODY, key: str = "k") -> Key:
    claimed = claimed_as("completions", key, body)
    assert claimed is not None
    return claimed


def stub(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, call: Callable[..., Awaitable[Any]]) -> None:
    monkeypatch.setattr(owner, name, call)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def gateway(clock: ManualClock) -> Gateway:
    return Gateway(memory_stores(clock), clock)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "AGAIN_S", 0.001)
    monkeypatch.setattr(accepting, "PENDING_FIRST_S", 0.001)


# How a request runs


@pytest.mark.requirement("durable:asked-for")
@pytest.mark.parametrize(
    ("wanted", "agent", "keyed_", "mode"),
    [
        ("auto", None, False, "classic"),
        ("auto", "brief", False, "classic"),
        ("auto", "lasting", False, "durable"),
        ("classic", "lasting", False, "classic"),
        ("durable", None, False, "durable"),
        ("durable", "brief", False, "durable"),
        ("classic", None, True, "durable"),
        ("auto", None, True, "durable"),
    ],
)
def test_the_request_wins_over_the_agent_and_a_key_over_both(
    gateway: Gateway, wanted: WantedMode, agent: str | None, keyed_: bool, mode: str
) -> None:
    route = Route(requested="x", models=("m",), pool="default", agent=agent)
    assert gateway.turns.mode(request(mode=wanted), route, keyed=keyed_) == mode


# What is stored


@pytest.mark.requirement("durable:stored-then-published")
async def test_the_whole_turn_is_stored_before_its_start_is_published(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = gateway.start()
    order: list[str] = []
    insert, send = gateway.stores.live_turns.insert, gateway.queue.send

    async def inserting(tenant: str, turn: LiveTurn) -> bool:
        order.append("insert")
        return await insert(tenant, turn)

    async def sending(*args: Any, **fields: Any) -> Receipt:
        order.append("send")
        return await send(*args, **fields)

    stub(monkeypatch, gateway.stores.live_turns, "insert", inserting)
    stub(monkeypatch, gateway.queue, "send", sending)
    assert await gateway.accept(start) is start
    assert order == ["insert", "send"]
    assert gateway.queue.starts == [(subjects.turn_start(start.turn), f"{start.turn}:start:0", start)]
    found = await gateway.stores.live_turns.get(TENANT, start.turn)
    assert isinstance(found, LiveTurn)
    assert codec.decode(codec.START, found.state) == start
    assert (found.version, found.status, found.mode, found.ordinal) == (1, "queued", "durable", 1)
    assert found.jobs == (Job(kind="model", step=1, attempt=1, pool="default"),)
    assert (found.model, found.key, found.gateway, found.conversation) == ("m", "key-1", "gw", start.conversation)
    assert (found.dialect, found.include_usage, found.request) == ("completions", True, "req_1")
    assert found.accepted_at_ms == start.accepted_at_ms


def test_what_the_client_calls_its_request_is_kept_and_else_the_requests_id(gateway: Gateway) -> None:
    assert gateway.start(label="mine").request == "mine"
    assert gateway.start(label="").request == ""
    assert gateway.start().request == "req_1"


def test_a_turn_in_a_given_conversation_has_no_number_yet(gateway: Gateway) -> None:
    assert queued(gateway.start(conversation="conv")).ordinal == 0
    assert queued(gateway.start(keep=False)).ordinal == 0


async def test_a_turn_is_watched_before_its_start_is_published_and_not_stopped_behind(gateway: Gateway) -> None:
    start = gateway.start()
    await gateway.accepting.store(start)
    async with gateway.accepting.running(start, None, Screen()):
        (watched,) = gateway.desk.open_now
        assert (watched.turn, watched.durable, watched.stream) == (start.turn, True, True)
        assert len(gateway.queue.starts) == 1
    assert gateway.desk.open_now == []


# What fails


@pytest.mark.requirement("durable:ambiguous-insert")
async def test_an_insert_that_ran_and_said_otherwise_is_done_again_under_the_same_id(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert, tries = gateway.stores.live_turns.insert, 0

    async def inserting(tenant: str, turn: LiveTurn) -> bool:
        nonlocal tries
        tries += 1
        done = await insert(tenant, turn)
        if tries == 1:
            raise Unavailable(ErrorCode.STORE_DOWN, "timed out")
        return done

    stub(monkeypatch, gateway.stores.live_turns, "insert", inserting)
    start = gateway.start()
    assert await gateway.accept(start) is start
    assert (tries, len(gateway.queue.starts)) == (2, 1)


@pytest.mark.requirement("fault:store-down")
@pytest.mark.parametrize("key", [None, keyed()])
async def test_a_store_that_does_not_answer_in_time_is_told(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, key: Key | None
) -> None:
    async def gone(*_: object, **__: object) -> bool:
        raise Unavailable(ErrorCode.STORE_DOWN, "down")

    monkeypatch.setattr(accepting, "STORE_S", 0.02)
    stub(monkeypatch, gateway.stores.claims if key else gateway.stores.live_turns, "claim" if key else "insert", gone)
    with pytest.raises(Unavailable) as refused:
        await gateway.accept(gateway.start(), key)
    assert (refused.value.code, refused.value.retry_after_s) == (ErrorCode.STORE_DOWN, 1)
    assert gateway.queue.starts == []


async def test_with_the_bus_known_to_be_gone_nothing_is_claimed_or_stored(gateway: Gateway) -> None:
    gateway.queue.connected = False
    start = gateway.start()
    with pytest.raises(Unavailable) as refused:
        await gateway.accept(start, keyed())
    assert refused.value.code is ErrorCode.BUS_DOWN
    assert await gateway.stores.live_turns.get(TENANT, start.turn) is None
    gateway.queue.connected = True
    assert isinstance(await gateway.accept(gateway.start(), keyed(b"another")), StartTurn)


@pytest.mark.requirement("durable:unknown-publication-is-accepted")
async def test_a_publication_whose_outcome_is_not_known_leaves_an_accepted_turn(gateway: Gateway) -> None:
    gateway.queue.error = Unavailable(ErrorCode.BUS_DOWN, "no answer")
    start = gateway.start()
    assert await gateway.accept(start) is start
    assert isinstance(await gateway.stores.live_turns.get(TENANT, start.turn), LiveTurn)
    assert gateway.queue.news == [f"turn.accepted.{start.turn}"]


@pytest.mark.requirement("durable:refused-leaves-nothing")
async def test_a_full_queue_leaves_neither_turn_nor_claim_nor_watch(gateway: Gateway) -> None:
    gateway.queue.error = Busy(ErrorCode.QUEUE_FULL, "full", retry_after_s=1)
    start, key = gateway.start(), keyed()
    stored = await gateway.accepting.store(start, key)
    assert stored is start
    with pytest.raises(Busy):
        async with gateway.accepting.running(start, key, Screen()):
            pytest.fail("it does not run")
    assert gateway.desk.open_now == []
    assert gateway.queue.news == []
    assert await gateway.stores.live_turns.get(TENANT, start.turn) is None
    gateway.queue.error = None
    again = gateway.start()
    assert await gateway.accept(again, key) is again


async def test_a_turn_that_somebody_runs_already_is_accepted_though_the_queue_is_full(gateway: Gateway) -> None:
    gateway.queue.error = Busy(ErrorCode.QUEUE_FULL, "full", retry_after_s=1)
    start = gateway.start()
    await gateway.accepting.store(start)
    await gateway.stores.live_turns.begin(TENANT, start.turn, ordinal=1)
    await gateway.accepting.publish(start, None)
    assert isinstance(await gateway.stores.live_turns.get(TENANT, start.turn), LiveTurn)


@pytest.mark.requirement("durable:unknown-conversation")
async def test_a_conversation_that_does_not_exist_is_told_before_anything_is_stored(gateway: Gateway) -> None:
    start, key = gateway.start(conversation="nowhere"), keyed()
    with pytest.raises(NotFound) as refused:
        await gateway.accept(start, key)
    assert refused.value.code is ErrorCode.CONVERSATION_UNKNOWN
    assert await gateway.stores.live_turns.get(TENANT, start.turn) is None
    await gateway.stores.conversations.create(TENANT, "nowhere", "other", agent=None)
    assert await gateway.accept(start, key) is start


@pytest.mark.requirement("durable:client-leaves-meanwhile")
@pytest.mark.parametrize("store", ["insert", "claim"])
async def test_a_client_that_leaves_in_the_middle_has_its_turn_accepted_all_the_same(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    owner = gateway.stores.live_turns if store == "insert" else gateway.stores.claims
    reached, original, tries = asyncio.Event(), getattr(owner, store), 0

    async def stuck(*args: Any, **fields: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries == 1:
            reached.set()
            await asyncio.Event().wait()
        return await original(*args, **fields)

    stub(monkeypatch, owner, store, stuck)
    start = gateway.start()
    request = asyncio.create_task(gateway.accept(start, keyed()))
    async with asyncio.timeout(5):
        await reached.wait()
        request.cancel()
        with suppress(asyncio.CancelledError):
            await request
        await gateway.queue.sent.wait()
    assert [each for _, _, each in gateway.queue.starts] == [start]
    assert isinstance(await gateway.stores.live_turns.get(TENANT, start.turn), LiveTurn)


async def test_a_full_queue_takes_nothing_back_of_which_an_insert_is_still_under_way(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, published = asyncio.Event(), asyncio.Event()
    insert, stuck = gateway.stores.live_turns.insert, [True]

    async def inserting(tenant: str, turn: LiveTurn) -> bool:
        if stuck:
            stuck.clear()
            reached.set()
            await asyncio.Event().wait()
        return await insert(tenant, turn)

    async def full(*_: object, **__: object) -> Receipt:
        published.set()
        raise Busy(ErrorCode.QUEUE_FULL, "full", retry_after_s=1)

    stub(monkeypatch, gateway.stores.live_turns, "insert", inserting)
    stub(monkeypatch, gateway.queue, "send", full)
    start = gateway.start()
    request = asyncio.create_task(gateway.accept(start))
    async with asyncio.timeout(5):
        await reached.wait()
        request.cancel()
        with suppress(asyncio.CancelledError):
            await request
        await published.wait()
        while tasks := [task for task in asyncio.all_tasks() if task.get_name() == "accept"]:
            await asyncio.wait(tasks)
    assert isinstance(await gateway.stores.live_turns.get(TENANT, start.turn), LiveTurn)
    assert gateway.queue.news == [f"turn.accepted.{start.turn}"]


# Keys


@pytest.mark.requirement("idempotency:one-turn")
async def test_of_twenty_at_once_at_two_gateways_one_runs_and_all_get_its_turn(clock: ManualClock) -> None:
    stores = memory_stores(clock)
    gateways = [Gateway(stores, clock, "one"), Gateway(stores, clock, "two")]
    starts = [gateways[n % 2].start() for n in range(20)]
    answers = await asyncio.gather(
        *(gateways[n % 2].accept(start, keyed()) for n, start in enumerate(starts)),
    )
    (won,) = [answer for answer in answers if isinstance(answer, StartTurn)]
    others = [answer for answer in answers if isinstance(answer, LiveTurn)]
    assert len(others) == 19
    assert {other.id for other in others} == {won.turn}
    assert [start.turn for gateway in gateways for _, _, start in gateway.queue.starts] == [won.turn]


@pytest.mark.requirement("idempotency:another-body-is-refused")
async def test_the_same_key_with_another_body_is_refused(gateway: Gateway) -> None:
    await gateway.accept(gateway.start(), keyed())
    with pytest.raises(BadRequest) as refused:
        await gateway.accept(gateway.start(), keyed(b"other"))
    assert refused.value.code is ErrorCode.IDEMPOTENCY_MISMATCH
    assert len(gateway.queue.starts) == 1


@pytest.mark.requirement("idempotency:pending")
async def test_a_key_whose_turn_is_not_stored_yet_is_waited_for_and_then_told(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, first = keyed(), gateway.start()
    await gateway.stores.claims.claim(TENANT, key.kind, key.value, first.turn, fingerprint=key.fingerprint)
    waiting = asyncio.create_task(gateway.accept(gateway.start(), key))
    await asyncio.sleep(0)
    await gateway.stores.live_turns.insert(TENANT, queued(first))
    async with asyncio.timeout(5):
        found = await waiting
    assert isinstance(found, LiveTurn)
    assert found.id == first.turn
    other = keyed(key="other")
    await gateway.stores.claims.claim(TENANT, other.kind, other.value, "never", fingerprint=other.fingerprint)
    monkeypatch.setattr(accepting, "PENDING_S", 0.0)
    monkeypatch.setattr(accepting, "ASK_AGAIN_S", 0.0)
    with pytest.raises(Conflict) as refused:
        await gateway.accept(gateway.start(), other)
    assert (refused.value.code, refused.value.retry_after_s) == (ErrorCode.IDEMPOTENCY_PENDING, 1)


@pytest.mark.requirement("idempotency:taken-over")
async def test_a_claim_that_ran_out_is_gone_on_with_under_its_own_turn(clock: ManualClock) -> None:
    stores = memory_stores(clock)
    frozen, other = Gateway(stores, clock, "frozen"), Gateway(stores, clock, "other")
    key, first = keyed(), frozen.start()
    await stores.claims.claim(TENANT, key.kind, key.value, first.turn, fingerprint=key.fingerprint)
    clock.now_s += 31
    taken = await other.accept(other.start(), key)
    assert isinstance(taken, StartTurn)
    assert taken.turn == first.turn
    # It thaws between its claim and its insert: what it would publish is not what is stored.
    found = await frozen.accept(first, key)
    assert isinstance(found, LiveTurn)
    assert (found.id, found.gateway) == (first.turn, "other")
    assert frozen.queue.starts == []


@pytest.mark.requirement("idempotency:taken-over", "idempotency:one-turn")
async def test_of_ten_that_wait_for_a_gateway_that_died_one_goes_on_and_the_others_get_its_turn(
    clock: ManualClock,
) -> None:
    stores, key = memory_stores(clock), keyed()
    await stores.claims.claim(TENANT, key.kind, key.value, "of-the-dead", fingerprint=key.fingerprint)
    gateways = [Gateway(stores, clock, "one"), Gateway(stores, clock, "two")]
    waiting = [asyncio.create_task(gateways[n % 2].accept(gateways[n % 2].start(), key)) for n in range(10)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    clock.now_s += 4.5
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*waiting)
    (won,) = [answer for answer in answers if isinstance(answer, StartTurn)]
    assert {answer.id for answer in answers if isinstance(answer, LiveTurn)} == {won.turn} == {"of-the-dead"}
    assert [start for gateway in gateways for _, _, start in gateway.queue.starts] == [won]


@pytest.mark.requirement("idempotency:a-refusal-is-not-kept", "idempotency:one-turn")
async def test_of_ten_that_come_back_after_a_refusal_one_runs_and_the_others_get_its_turn(clock: ManualClock) -> None:
    stores, key = memory_stores(clock), keyed()
    gateways = [Gateway(stores, clock, "one"), Gateway(stores, clock, "two")]
    first = gateways[0].start()
    await gateways[0].accept(first, key)
    await _end(gateways[0], first, ErrorCode.CONVERSATION_BUSY)
    answers = await asyncio.gather(*(gateways[n % 2].accept(gateways[n % 2].start(), key) for n in range(10)))
    (won,) = [answer for answer in answers if isinstance(answer, StartTurn)]
    assert won.turn != first.turn
    assert {answer.id for answer in answers if isinstance(answer, LiveTurn)} == {won.turn}
    assert [start for gateway in gateways for _, _, start in gateway.queue.starts] == [first, won]


@pytest.mark.requirement("idempotency:a-refusal-is-not-kept")
@pytest.mark.parametrize("code", [ErrorCode.CONVERSATION_BUSY, ErrorCode.CONVERSATION_FULL])
async def test_a_key_whose_turn_was_refused_is_free_for_another_try(gateway: Gateway, code: ErrorCode) -> None:
    key, first = keyed(), gateway.start()
    await gateway.accept(first, key)
    await gateway.stores.claims.settle(TENANT, key.kind, key.value, first.turn)
    await _end(gateway, first, code)
    second = gateway.start()
    assert await gateway.accept(second, key) is second
    assert [start.turn for _, _, start in gateway.queue.starts] == [first.turn, second.turn]


@pytest.mark.requirement("idempotency:replayed")
@pytest.mark.parametrize(
    ("code", "ran"),
    [
        (ErrorCode.UPSTREAM_FAILED, {}),
        (ErrorCode.STORE_DOWN, {"steps": (Step(step=1, text="I will."),)}),
        (ErrorCode.STORE_DOWN, {"answer": AssistantMessage(text="Once")}),
    ],
)
async def test_a_key_whose_turn_failed_after_it_was_run_stands_for_that_failure(
    gateway: Gateway, code: ErrorCode, ran: dict[str, Any]
) -> None:
    key, first = keyed(), gateway.start()
    await gateway.accept(first, key)
    await _end(gateway, first, code, **ran)
    found = await gateway.accept(gateway.start(), key)
    assert isinstance(found, TurnRecord)
    assert found.id == first.turn


async def test_a_full_queue_takes_nothing_back_that_may_be_stored_later(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert, failures = gateway.stores.live_turns.insert, [Unavailable(ErrorCode.STORE_DOWN, "no answer")]

    async def doubtful(tenant: str, turn: LiveTurn) -> bool:
        if failures:
            raise failures.pop()
        return await insert(tenant, turn)

    stub(monkeypatch, gateway.stores.live_turns, "insert", doubtful)
    gateway.queue.error = Busy(ErrorCode.QUEUE_FULL, "full", retry_after_s=1)
    start = gateway.start()
    assert await gateway.accept(start) is start
    assert isinstance(await gateway.stores.live_turns.get(TENANT, start.turn), LiveTurn)


async def test_a_start_that_could_not_be_published_goes_out_as_one_that_comes_again(gateway: Gateway) -> None:
    gateway.queue.error = Unavailable(ErrorCode.BUS_DOWN, "no answer")
    start = gateway.start()
    await gateway.accept(start)
    gateway.queue.error = None
    async with asyncio.timeout(5):
        await gateway.queue.sent.wait()
    assert [(subject, sent) for subject, _, sent in gateway.queue.starts] == [
        (subjects.control_start(start.turn), start)
    ]


async def _end(gateway: Gateway, start: StartTurn, code: ErrorCode, **ran: Any) -> None:
    record = TurnRecord(
        id=start.turn,
        tenant=TENANT,
        status="failed",
        mode="durable",
        model=start.route.requested,
        error=ErrorInfo(code=code, message="no", retry_after_s=1.0),
        **ran,
    )
    await gateway.stores.live_turns.finish(TENANT, record, version=1)


# Ids of messages


@pytest.mark.requirement("messages:one-id-one-turn")
@pytest.mark.parametrize("mode", ["classic", "durable"])
async def test_of_many_messages_with_one_id_one_is_a_turn(clock: ManualClock, mode: Mode) -> None:
    stores = memory_stores(clock)
    gateways = [Gateway(stores, clock, replica) for replica in ("gw-a", "gw-b")]

    async def send(place: int) -> object:
        gateway = gateways[place % 2]
        start = replace(gateway.start(message="m-1"), mode=mode)
        return await (gateway.accepting.store(start) if mode == "durable" else gateway.accepting.reserve(start, ()))

    answers = await asyncio.gather(*map(send, range(20)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, Conflict)]
    assert {each.code for each in refused} == {ErrorCode.MESSAGE_EXISTS}
    assert (len(refused), sum(isinstance(answer, StartTurn) for answer in answers)) == (19, 1)
    # Another tenant's message of that id is another one.
    other = replace(gateways[0].start(message="m-1"), tenant="other")
    assert isinstance(await gateways[0].accepting.store(other), StartTurn)


@pytest.mark.requirement("messages:one-id-one-turn")
async def test_a_refused_turn_gives_the_id_of_its_message_back(gateway: Gateway) -> None:
    start = gateway.start(message="m-2")
    reserved = await gateway.accepting.reserve(replace(start, mode="classic"), ())
    await gateway.accepting.free(reserved)
    stored = await gateway.accepting.store(start, keyed())
    assert isinstance(stored, StartTurn)
    gateway.queue.error = Busy(ErrorCode.QUEUE_FULL, "full")
    with pytest.raises(Busy):
        await gateway.accepting.publish(stored, keyed())
    gateway.queue.error = None
    assert isinstance(await gateway.accept(gateway.start(message="m-2")), StartTurn)


@pytest.mark.requirement("messages:one-id-one-turn")
async def test_a_message_id_that_was_used_leaves_the_key_beside_it_free(gateway: Gateway) -> None:
    await gateway.accept(gateway.start(message="m-3"))
    with pytest.raises(Conflict) as refused:
        await gateway.accepting.store(gateway.start(message="m-3"), keyed())
    assert refused.value.code is ErrorCode.MESSAGE_EXISTS
    assert isinstance(await gateway.accept(gateway.start(message="m-4"), keyed()), StartTurn)


@pytest.mark.requirement("messages:one-id-one-turn")
async def test_a_repeated_request_with_a_key_is_its_turn_again_whatever_the_id_of_its_message(gateway: Gateway) -> None:
    first = await gateway.accept(gateway.start(message="m-5"), keyed())
    again = await gateway.accepting.store(gateway.start(message="m-5"), keyed())
    assert isinstance(first, StartTurn)
    assert isinstance(again, LiveTurn)
    assert again.id == first.turn


@pytest.mark.requirement("messages:one-id-one-turn")
@pytest.mark.parametrize("code", [ErrorCode.CONVERSATION_BUSY, ErrorCode.CONVERSATION_HELD])
async def test_the_id_of_a_message_whose_stored_turn_was_refused_is_free_for_another_try(
    gateway: Gateway, code: ErrorCode
) -> None:
    first = gateway.start(message="m-6")
    await gateway.accept(first)
    await gateway.stores.claims.settle(TENANT, "message", "m-6", first.turn)
    await _end(gateway, first, code)
    answers = await asyncio.gather(
        *(gateway.accept(gateway.start(message="m-6")) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(answer, StartTurn) for answer in answers) == 1
    assert sum(isinstance(answer, Conflict) for answer in answers) == 4


@pytest.mark.requirement("messages:one-id-one-turn")
async def test_the_id_of_a_message_whose_turn_failed_stays_taken(gateway: Gateway) -> None:
    first = gateway.start(message="m-7")
    await gateway.accept(first)
    await _end(gateway, first, ErrorCode.UPSTREAM_FAILED)
    with pytest.raises(Conflict):
        await gateway.accept(gateway.start(message="m-7"))


async def test_a_key_whose_turn_was_deleted_is_told_so(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    first = gateway.start(conversation="c-gone", creates=True)
    await gateway.accept(first, keyed())
    await gateway.stores.turns.erase(TENANT, conversation="c-gone")
    monkeypatch.setattr(accepting, "ASK_AGAIN_S", 0.0)
    with pytest.raises(NotFound) as refused:
        await gateway.accepting.store(gateway.start(conversation="c-gone", creates=True), keyed())
    assert refused.value.code is ErrorCode.CONVERSATION_UNKNOWN


@pytest.mark.parametrize("conversation", [{}, {"keep": False}])
@pytest.mark.parametrize("mode", ["classic", "durable"])
async def test_a_refused_turn_leaves_no_file(gateway: Gateway, mode: Mode, conversation: dict[str, Any]) -> None:
    part = FilePart(media_type="image/png", blob="#0", size=3)
    start = replace(gateway.start(messages=(UserMessage(parts=(part,)),), **conversation), mode=mode)
    if mode == "classic":
        kept = await gateway.accepting.reserve(start, [b"png"])
        await gateway.accepting.free(kept)
    else:
        stored = await gateway.accepting.store(start, None, [b"png"])
        assert isinstance(stored, StartTurn)
        kept = stored
        gateway.queue.error = Busy(ErrorCode.QUEUE_FULL, "full")
        with pytest.raises(Busy):
            await gateway.accepting.publish(kept, None)
    (message,) = kept.input
    assert isinstance(message, UserMessage)
    (file,) = message.parts
    assert isinstance(file, FilePart)
    assert file.blob not in (None, "#0")
    assert await gateway.stores.blobs.get(TENANT, str(file.blob)) is None


async def test_files_for_a_conversation_that_does_not_exist_are_not_stored(gateway: Gateway) -> None:
    part = FilePart(media_type="image/png", blob="#0", size=3)
    start = gateway.start(messages=(UserMessage(parts=(part,)),), conversation="unknown")
    with pytest.raises(NotFound) as refused:
        await gateway.accepting.reserve(replace(start, mode="classic"), [b"png"])
    assert refused.value.code is ErrorCode.CONVERSATION_UNKNOWN


async def test_files_are_stored_once_and_named_in_the_turn(gateway: Gateway) -> None:
    parts = (FilePart(media_type="image/png", blob="#0", size=3), TextPart(text="What is it?"))
    asked = {"messages": (UserMessage(parts=parts),), "conversation": "c-files", "creates": True}
    starts = [await gateway.accepting.store(gateway.start(**asked), None, [b"png"]) for _ in range(2)]
    blobs = set()
    for start in starts:
        assert isinstance(start, StartTurn)
        (message,) = start.input
        assert isinstance(message, UserMessage)
        (part, text) = message.parts
        assert isinstance(part, FilePart)
        assert text == parts[1]
        assert part.blob is not None
        assert await gateway.stores.blobs.get(TENANT, part.blob) == b"png"
        blobs.add(part.blob)
    assert len(blobs) == 1
