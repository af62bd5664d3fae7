"""Every service's own user on a real nats-server, against everything that any service may say or hear."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import nats
import pytest
from nats.aio.client import Client
from structlog.testing import capture_logs

from integration.access.guarded import Guarded
from kitemesh_contracts import subjects, topology
from kitemesh_contracts.errors import Bug, Unavailable
from kitemesh_contracts.permissions import OPERATOR, SERVICES, ServiceName, bus_rights, inbox_prefix
from kitemesh_runtime.bus import Delivery
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.memory_streams import in_memory, restore
from kitemesh_runtime.topology_nats import apply

QUICKLY_S = 3.0
_DENIED = re.compile(r'permissions violation for (\w+) to "([^"]+)"')

NOBODYS = (
    "km.v1.timer.due.hold.t",
    "km.v1.ctl.catalog.changed",
    "$JS.API.STREAM.PURGE.KM_TURN",
    "$JS.API.STREAM.DELETE.KM_OUT",
    "$JS.API.STREAM.UPDATE.KM_TURN",
    "$JS.API.CONSUMER.CREATE.KM_MODEL.mine",
    "$JS.API.CONSUMER.DELETE.KM_MODEL.default-interactive-0",
    "$JS.API.STREAM.SNAPSHOT.KM_MODEL",
    f"{topology.ADVISORY_MAX_DELIVERIES}.KM_TURN.orchestrator-turn",
    "_INBOX.0123456789abcdef.1",
    "foreign.subject",
)


def one_of_each(patterns: Iterable[str]) -> set[str]:
    """Return a subject for each pattern."""
    return {each.replace("*", "t").replace(">", "t.t") for each in patterns}


SAID = sorted({*NOBODYS, *(one for service in SERVICES for one in one_of_each(bus_rights(service).publish))})
HEARD = sorted({">", "km.v1.>", "_INBOX.>", "$JS.>", *NOBODYS, *(x for s in SERVICES for x in bus_rights(s).subscribe)})


def allowed(patterns: Iterable[str], subject: str) -> bool:
    """Tell what the allow-list says of a subject, or of a pattern."""
    return any(
        re.fullmatch(re.escape(each).replace(r"\*", r"[^.>]+").replace(r"\.>", r"(\.[^.]+)+"), subject)
        for each in patterns
    )


@asynccontextmanager
async def signed_in(guarded: Guarded, user: str, denied: set[str]) -> AsyncIterator[Client]:
    async def note(error: Exception) -> None:
        found = _DENIED.search(str(error))
        assert found is not None, error
        denied.add(found[2])

    client = await nats.connect(guarded.bus(user), error_cb=note, inbox_prefix=inbox_prefix(user).encode())
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def bus_of(guarded: Guarded, service: str) -> AsyncIterator[NatsBus]:
    prefix = inbox_prefix(service)
    async with open_bus(guarded.bus(service), name=service, inbox_prefix=prefix, pull_heartbeat_s=0.5) as bus:
        yield bus


async def settled(client: Client, denied: set[str], count: int) -> None:
    """Return once the server answered everything; its errors come before the answer to a ping, but are told later."""
    await client.flush()
    async with asyncio.timeout(QUICKLY_S):
        while len(denied) < count:  # noqa: ASYNC110  the library's callback is a task of its own
            await asyncio.sleep(0)


@pytest.mark.requirement("access:bus")
@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_can_say_all_that_it_has_to_and_nothing_of_anybody_elses(
    guarded_nats: Guarded, service: ServiceName
) -> None:
    foreign = {each.lower() for each in SAID if not allowed(bus_rights(service).publish, each)}
    assert len(foreign) > len(NOBODYS)
    denied: set[str] = set()
    async with signed_in(guarded_nats, service, denied) as client:
        for subject in SAID:
            await client.publish(subject, b"")
        await settled(client, denied, len(foreign))
        assert denied == foreign


@pytest.mark.requirement("access:bus")
@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_can_hear_all_that_it_has_to_and_nothing_of_anybody_elses(
    guarded_nats: Guarded, service: ServiceName
) -> None:
    foreign = {each.lower() for each in HEARD if not allowed(bus_rights(service).subscribe, each)}
    denied: set[str] = set()
    async with signed_in(guarded_nats, service, denied) as client:
        for subject in HEARD:
            await client.subscribe(subject)
        await settled(client, denied, len(foreign))
        assert denied == foreign


@pytest.mark.parametrize("user", ["", "gateway:wrong@", "nobody:guess@"])
async def test_who_has_no_password_is_not_let_in(guarded_nats: Guarded, user: str) -> None:
    url = guarded_nats.url.replace("nats://", f"nats://{user}")
    with pytest.raises(Unavailable, match="cannot be reached"):
        async with open_bus(url, name="stranger", connect_timeout_s=0.3):
            pytest.fail("a stranger was let in")


@pytest.mark.requirement("access:bus")
async def test_work_is_taken_and_acknowledged_by_its_own_service_only(guarded_nats: Guarded) -> None:
    taken: asyncio.Queue[Delivery] = asyncio.Queue()
    subject, turn = subjects.model_job("default", "interactive", 0, "t1"), "t1"
    async with (
        bus_of(guarded_nats, "orchestrator") as orchestrator,
        bus_of(guarded_nats, "model-runner") as runner,
        bus_of(guarded_nats, "tool-executor") as executor,
    ):
        await orchestrator.send(subject, b"a job", msg_id=f"{turn}:0:model:0:0")
        assert await orchestrator.holds(topology.MODEL, subject)
        foreign = await executor.pull(topology.MODEL, "default-interactive-0", taken.put_nowait)
        foreign.add_credit(1)
        await executor.barrier()
        own = await runner.pull(topology.MODEL, "default-interactive-0", taken.put_nowait)
        own.add_credit(1)
        async with asyncio.timeout(QUICKLY_S):
            delivery = await taken.get()
        assert delivery.data == b"a job"
        assert taken.empty()
        # It asks again and again, and each time is denied.
        await foreign.stop()

        reply = delivery._reply.decode()
        with capture_logs() as logs:
            executor.publish(reply, b"+ACK")
            await executor.barrier()
        assert [(each["what"], each["subject"]) for each in logs if each["event"] == "bus.denied"] == [
            ("publish", reply)
        ]
        assert await orchestrator.holds(topology.MODEL, subject)
        delivery.ack()
        await runner.barrier()
        async with asyncio.timeout(QUICKLY_S):
            while await orchestrator.holds(topology.MODEL, subject):  # noqa: ASYNC110  the server takes an ack in its own time
                await asyncio.sleep(0)
        await own.stop()


@pytest.mark.requirement("access:denied-is-no-outage")
async def test_what_is_denied_fails_at_once_is_counted_and_is_no_outage(guarded_nats: Guarded) -> None:
    counted: list[str] = []
    prefix = inbox_prefix("tool-executor")
    url = guarded_nats.bus("tool-executor")
    async with (
        asyncio.timeout(QUICKLY_S),
        open_bus(url, name="executor", inbox_prefix=prefix, on_error=counted.append) as bus,
    ):
        with pytest.raises(Bug, match=r"publish to km\.v1\.turn\.start\.t1"):
            await bus.send(subjects.turn_start("t1"), b"", msg_id="t1:start", timeout_s=60)
        with pytest.raises(Bug, match=r"STREAM\.INFO\.KM_TURN"):
            await bus.holds(topology.TURN, subjects.turn_start("t1"))
        with pytest.raises(Bug, match=r"DIRECT\.GET\.KM_OUT"):
            await bus.last_of(topology.OUT, subjects.out_block("t1", 0, 0, 0), timeout_s=60)
        bus.post(subjects.feed("acme", "turn.accepted", "t1"), b"")
        assert await bus.posted(timeout_s=60)
        assert bus.connected
    assert counted == ["permission"] * 4


async def test_gateways_answer_questions_of_other_services_on_what_is_left_open_for_answers(
    guarded_nats: Guarded,
) -> None:
    async with (
        asyncio.timeout(QUICKLY_S),
        bus_of(guarded_nats, "gateway") as gateway,
        bus_of(guarded_nats, "orchestrator") as orchestrator,
        bus_of(guarded_nats, "gateway") as other,
    ):
        await gateway.answer(subjects.ASK_CANCEL_ALL, lambda subject, _: subjects.last_token(subject).encode())
        await gateway.barrier()
        assert await orchestrator.request(subjects.ask_cancel("t1"), b"", timeout_s=1) == b"t1"
        assert await other.request(subjects.ask_cancel("t2"), b"", timeout_s=1) == b"t2"


async def test_the_orchestrator_makes_streams_again_that_the_server_lost_with_its_memory(guarded_nats: Guarded) -> None:
    async with (
        asyncio.timeout(QUICKLY_S),
        bus_of(guarded_nats, OPERATOR) as operator,
        bus_of(guarded_nats, "orchestrator") as orchestrator,
    ):
        for spec in in_memory():
            await operator.request(f"$JS.API.STREAM.DELETE.{spec.name}", b"", timeout_s=1)
        assert await restore(orchestrator)
        assert await apply(operator, topology.topology(), replicas=1) == []


async def test_the_operator_may_do_everything(guarded_nats: Guarded) -> None:
    denied: set[str] = set()
    async with signed_in(guarded_nats, OPERATOR, denied) as client:
        for subject in HEARD:
            await client.subscribe(subject)
        await client.publish("km.v1.ctl.key.abcdefgh", b"")
        await client.flush()
    assert not denied


async def test_every_attempt_with_a_wrong_password_ends_in_its_time_whenever_that_is_up(guarded_nats: Guarded) -> None:
    url = guarded_nats.url.replace("nats://", "nats://gateway:wrong@")

    async def attempt(timeout_s: float) -> None:
        with pytest.raises(Unavailable):
            async with open_bus(url, name="stranger", connect_timeout_s=timeout_s, reconnect_wait_s=0.001):
                pytest.fail("a stranger was let in")

    async with asyncio.timeout(QUICKLY_S), asyncio.TaskGroup() as attempts:
        for number in range(100):
            attempts.create_task(attempt(0.0003 * number))
