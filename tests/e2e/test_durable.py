"""Durable turns in a cluster whose gateways are killed, whose runner is frozen and whose bus forgets everything.

What takes its time, a claim that must run out and a runner that stands still for three leases, happens beside the rest.
"""

import asyncio
import concurrent.futures
import contextlib
import http.client
import itertools
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
import yaml

from chaos.nats_nodes import running_nats
from chaos.nodes import Node
from chaos.replicas import Replicas, replicas_of
from cluster import GROUP, LOOPBACK, Cluster, Reply, running_cluster
from kitemesh_contracts import topology
from stream_client import Shown, ask, followed, open_session, read_to_the_end, streaming
from tool_cluster import Gateway, another_gateway, ended, execution, until
from upstream import Upstream, start_upstream

POINTS = ("gw.after_claim", "gw.after_insert", "gw.after_publish")
FROZEN_S = 3 * topology.WORKER_ACK_WAIT_S + 0.5
SWEEP_S = 6.0
"""The longest time between two sweeps, and what one takes."""
PACED = "@delay_ms 100\n@count 60"
MODELS = {
    "counted": "ok?tokens=5&delay_ms=60",
    "left": "ok?tokens=20&delay_ms=50",
    "paced": "ok?tokens=60&delay_ms=100",
    "same": "ok?tokens=150&delay_ms=100",
    "changing": "ok?tokens=60&delay_ms=100&variant=changing",
}
_numbers = itertools.count(1)


class Lasting(NamedTuple):
    """The cluster.

    Attributes:
        cluster: With its own gateway, which is started again when it dies.
        other: Another gateway, which nobody kills.
        replicas: Further processes.
        nats: Its bus.
        upstream: Answers for `MODELS`.
        folder: Where the failpoints' files are.

    """

    cluster: Cluster
    other: Gateway
    replicas: Replicas
    nats: Node
    upstream: Upstream
    folder: Path

    @property
    def gateways(self) -> tuple[Cluster, Cluster]:
        return self.cluster, self.other

    async def calls(self, tag: str, *, ended: int = 0) -> list[dict[str, Any]]:
        """Return the calls of the upstream whose prompt is that text."""
        records = await self.upstream.records(ended=ended)
        return [record for record in records if record["body"]["messages"][-1]["content"] == tag]


def catalog(upstream: str) -> dict[str, Any]:
    stub = {"kind": "openai", "base_url": upstream}
    return {
        "version": 1,
        "default_model": "scripted",
        "providers": {"scripted": {"kind": "scripted"}, "stub": stub},
        "models": {"scripted": {"provider": "scripted"}}
        | {name: {"provider": "stub", "upstream": plan} for name, plan in MODELS.items()},
        "agents": {"assistant": {"model": "scripted"}, "lasting": {"model": "scripted", "mode": "durable"}},
        "groups": {GROUP.removeprefix("group:"): {"models": ["scripted"], "agent": "assistant"}},
    }


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lasting]:
    folder = tmp_path_factory.mktemp("durable")
    points = ",".join(f"{point}:kill@{folder / point}" for point in POINTS)
    with running_nats(folder) as nats, start_upstream(folder / "upstream.log") as upstream:
        (folder / "catalog.yaml").write_text(yaml.safe_dump(catalog(upstream.url)))
        environ = {
            "KITEMESH_CATALOG": str(folder / "catalog.yaml"),
            "KITEMESH_NATS_URL": f"nats://{LOOPBACK}:{nats.port}",
        }
        with (
            running_cluster(folder / "cluster", KITEMESH_FAILPOINT=points, **environ) as cluster,
            replicas_of(cluster, {}) as replicas,
            another_gateway(cluster, folder) as other,
        ):
            yield Lasting(cluster, other, replicas, nats, upstream, folder)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as opened:
        yield opened


def tag() -> str:
    """Return a prompt that no other test has."""
    return f"ask {next(_numbers)} of {time.monotonic_ns()}"


def whole(gateway: Cluster, model: str, text: str, *, key: str = "") -> Reply:
    """Ask for an answer in one piece; durable when there is a key."""
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    return gateway.call("/v1/chat/completions", body, headers={"Idempotency-Key": key} if key else {})


def text_of(reply: Reply) -> str:
    assert reply.status == 200, reply.body
    return str(reply.json()["choices"][0]["message"]["content"])


def words(count: int) -> str:
    return "".join(f"w{n} " for n in range(count))


def counted(count: int) -> str:
    return "".join(f"{n} " for n in range(1, count + 1))


# What takes its time


class Killed(NamedTuple):
    """What a client was told that lost its gateway and asked another one with its key, until it was answered."""

    reply: Reply
    refusals: list[str]
    took_s: float


def ask_until_answered(lasting: Lasting, text: str) -> Killed:
    """Lose a gateway, then ask the other."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        lost = whole(lasting.cluster, "counted", text, key=text)
        raise AssertionError(f"the gateway lives: {lost}")
    began_s = time.monotonic()
    refusals = []
    while (reply := whole(lasting.other, "counted", text, key=text)).status in {409, 503}:
        refusals.append(reply.json()["error"]["code"])
        assert time.monotonic() - began_s < 60
    return Killed(reply, refusals, time.monotonic() - began_s)


def lose_gateway(lasting: Lasting, point: str) -> tuple[str, "concurrent.futures.Future[Killed]"]:
    """Have a gateway killed under a client, and return once another is in its place."""
    pid, text = lasting.cluster.processes()["gateway"].pid, tag()
    (lasting.folder / point).write_bytes(b"x")
    killed = POOL.submit(ask_until_answered, lasting, text)
    lasting.cluster.restarted("gateway", pid)
    until(lambda: serves(lasting.cluster))
    return text, killed


def serves(gateway: Cluster) -> bool:
    try:
        return gateway.call("/v1/models").status == 200
    except (OSError, http.client.HTTPException):
        return False


POOL = concurrent.futures.ThreadPoolExecutor(4)


@pytest.fixture(scope="module")
def claimed(lasting: Lasting) -> tuple[str, "concurrent.futures.Future[Killed]"]:
    """A client whose gateway died with a claim in its hands, which must run out."""
    return lose_gateway(lasting, "gw.after_claim")


class Thawed(NamedTuple):
    """Clients of a runner that stood still in the middle of their answers, until another one had taken over."""

    continued: Shown
    same: Shown
    changed: Shown


@pytest.fixture(scope="module")
def frozen(lasting: Lasting, claimed: object) -> "concurrent.futures.Future[Thawed]":
    """A runner that stands still while the other tests run."""
    stopped: concurrent.futures.Future[None] = concurrent.futures.Future()
    result = POOL.submit(asyncio.run, freeze_and_thaw(lasting, stopped))
    concurrent.futures.wait((stopped, result), return_when=concurrent.futures.FIRST_COMPLETED, timeout=60)
    return result


async def freeze_and_thaw(lasting: Lasting, stopped: "concurrent.futures.Future[None]") -> Thawed:
    cluster, gateway = lasting.cluster, lasting.other
    thawed = Thawed(Shown(), Shown(), Shown())
    bodies = (ask(PACED), ask("be yourself", model="same"), ask("be yourself", model="changing"))
    async with open_session() as session, asyncio.TaskGroup() as tasks:
        clients = [
            tasks.create_task(read_to_the_end(session, (gateway,), body, shown))
            for body, shown in zip(bodies, thawed, strict=True)
        ]
        while min(len(shown.text) for shown in thawed) < 12:
            assert not any(client.done() for client in clients)
            await asyncio.sleep(0.02)
        pid = cluster.kill("model-runner", signal.SIGSTOP)
        end_s = time.monotonic() + FROZEN_S
        try:
            lasting.replicas.start("model-runner-b", "model-runner")
            await asyncio.to_thread(lasting.replicas.ready)
            stopped.set_result(None)
            await asyncio.sleep(end_s - time.monotonic())
        finally:
            assert cluster.kill("model-runner", signal.SIGCONT) == pid
    return thawed


# Asked for


@pytest.mark.requirement("durable:asked-for", "durable:visible-at-once")
async def test_a_durable_turn_is_seen_everywhere_as_soon_as_it_is_accepted(
    session: aiohttp.ClientSession, lasting: Lasting, frozen: object
) -> None:
    text = "@first_ms 400\n@count 3"
    for body, key in (
        (ask(text), ""),
        (ask(text, mode=None, model="agent:lasting"), ""),
        (ask(text, mode="classic"), tag()),
    ):
        async with streaming(session, lasting.cluster, body, idempotency=key) as stream:
            turn = stream.headers["x-execution-id"]
            shown = await asyncio.to_thread(execution, lasting.other, turn)
            assert (shown["mode"], shown["status"] in {"queued", "running"}) == ("durable", True)
            listed = await asyncio.to_thread(lasting.other.call, "/v1/executions?limit=1")
            assert [each["id"] for each in listed.json()["data"]] == [turn]
            seen = Shown()
            seen.take_all(await stream.rest())
        assert (seen.text, seen.is_complete) == (counted(3), True)
        found = await asyncio.to_thread(ended, lasting.other, turn, "completed")
        assert found["steps"][-1]["text"] == counted(3)
    slow = "@delay_ms 200\n@count 3"
    async with streaming(session, lasting.cluster, ask(slow, mode="classic", model="agent:lasting")) as stream:
        turn = stream.headers["x-execution-id"]
        missing = await asyncio.to_thread(lasting.other.call, f"/v1/executions/{turn}")
        assert missing.status == 404
        await stream.rest()


@pytest.mark.requirement("durable:client-leaves", "promise:P16")
async def test_a_durable_turn_goes_on_without_its_client_and_a_classic_one_does_not(
    session: aiohttp.ClientSession, lasting: Lasting, frozen: object
) -> None:
    for mode, end, status in (("durable", "answered", "completed"), ("classic", "disconnected", "cancelled")):
        text = tag()
        async with streaming(session, lasting.cluster, ask(text, mode=mode, model="left")) as stream:
            turn = stream.headers["x-execution-id"]
            await stream.read(4)
        left_s = time.monotonic()
        found = await asyncio.to_thread(until, lambda turn=turn: over(lasting.other, turn))
        assert found["status"] == status
        (call,) = await lasting.calls(text)
        assert call["end"] == end
        if mode == "durable":
            assert found["steps"][-1]["text"] == words(20)
        else:
            # One machine, one monotonic clock.
            assert call["end_at_s"] - left_s < 2


def over(gateway: Cluster, turn: str) -> dict[str, Any] | None:
    reply = gateway.call(f"/v1/executions/{turn}")
    return reply.json() if reply.status == 200 and reply.json()["status"] not in {"queued", "running"} else None


@pytest.mark.requirement(
    "idempotency:one-turn", "idempotency:replayed", "idempotency:another-body-is-refused", "idempotency:key-is-checked"
)
async def test_of_the_same_request_at_once_at_two_gateways_one_runs_and_all_get_its_answer(
    session: aiohttp.ClientSession, lasting: Lasting, frozen: object
) -> None:
    text = tag()
    asked = (asyncio.to_thread(whole, lasting.gateways[n % 2], "counted", text, key=text) for n in range(20))
    replies = await asyncio.gather(*asked)
    assert {text_of(reply) for reply in replies} == {words(5)}
    assert len({reply.body for reply in replies}) == 1
    assert len({reply.headers["x-execution-id"] for reply in replies}) == 1
    assert sum("Idempotency-Replayed" not in reply.headers for reply in replies) == 1
    assert len(await lasting.calls(text)) == 1
    streams = tag()
    body = ask(streams, model="counted")
    shown = await asyncio.gather(
        *(read_to_the_end(session, lasting.gateways[n % 2 :], body, Shown(), idempotency=streams) for n in range(20))
    )
    assert {(each.text, each.is_complete) for each in shown} == {(words(5), True)}
    assert len({tuple(event.block for event in each.events) for each in shown}) == 1
    assert len(await lasting.calls(streams)) == 1
    for gateway in lasting.gateways:
        late = whole(gateway, "counted", text, key=text)
        assert (late.body, late.headers["Idempotency-Replayed"]) == (replies[0].body, "true")
        other = whole(gateway, "counted", streams, key=text)
        assert (other.status, other.json()["error"]["code"]) == (422, "idempotency.mismatch")
        assert whole(gateway, "counted", text, key="x" * 256).status == 400
    assert len(await lasting.calls(text)) == 1


@pytest.mark.requirement("durable:gateway-dies", "idempotency:one-turn")
@pytest.mark.parametrize("point", ["gw.after_insert", "gw.after_publish"])
async def test_a_request_whose_gateway_dies_is_answered_by_another_for_its_key(
    lasting: Lasting, frozen: object, point: str
) -> None:
    text, killed = await asyncio.to_thread(lose_gateway, lasting, point)
    found = await asyncio.wrap_future(killed)
    assert text_of(found.reply) == words(5)
    assert found.reply.headers["Idempotency-Replayed"] == "true"
    assert found.refusals == []
    assert found.took_s < 20
    assert len(await lasting.calls(text)) == 1


# What took its time


@pytest.mark.requirement("promise:P3", "attempt:newest-is-followed")
async def test_an_answer_whose_runner_stood_still_is_gone_on_with_where_it_was(
    lasting: Lasting, frozen: "concurrent.futures.Future[Thawed]"
) -> None:
    shown = (await asyncio.wrap_future(frozen)).continued
    assert (shown.text, shown.is_complete, shown.requests) == (counted(60), True, 1)
    assert shown.attempts() == [1, 2]
    found = await asyncio.to_thread(ended, lasting.other, shown.execution, "completed")
    assert found["steps"][-1]["text"] == shown.text


@pytest.mark.requirement("promise:P3", "attempt:newest-is-followed")
async def test_an_answer_that_is_told_again_in_the_same_words_is_shown_once(
    lasting: Lasting, frozen: "concurrent.futures.Future[Thawed]"
) -> None:
    shown = (await asyncio.wrap_future(frozen)).same
    assert (shown.text, shown.is_complete, shown.requests) == (words(150), True, 1)
    assert shown.attempts() == [1, 2]
    found = await asyncio.to_thread(ended, lasting.other, shown.execution, "completed")
    assert found["steps"][-1]["text"] == shown.text


@pytest.mark.requirement("promise:P3", "attempt:only-a-prefix-is-continued", "resume:gap-is-an-error")
async def test_an_answer_that_is_told_again_in_other_words_is_an_error_and_never_a_mixture(
    session: aiohttp.ClientSession, lasting: Lasting, frozen: "concurrent.futures.Future[Thawed]"
) -> None:
    shown = (await asyncio.wrap_future(frozen)).changed
    assert len(shown.text) >= 12
    assert words(60).startswith(shown.text)
    assert (shown.is_done, shown.finishes, shown.problem["code"]) == (False, [], "stream.gap")
    assert shown.execution in shown.problem["message"]
    found = await asyncio.to_thread(ended, lasting.other, shown.execution, "completed")
    assert found["steps"][-1]["text"] == "".join(f"v2-{n} " for n in range(60))
    async with streaming(session, lasting.cluster, {}, last=shown.last_id) as stream:
        assert (stream.status, (await stream.json())["error"]["code"]) == (410, "stream.gap")
    async with streaming(session, lasting.cluster, path=followed(shown.execution)) as stream:
        assert b"v2-59" in b"".join(event.block for event in await stream.rest())


# Without the bus's store


@pytest.mark.requirement("promise:P9")
async def test_every_accepted_turn_ends_when_the_bus_has_forgotten_everything(
    session: aiohttp.ClientSession, lasting: Lasting, frozen: "concurrent.futures.Future[Thawed]"
) -> None:
    await asyncio.wrap_future(frozen)
    seen = [Shown() for _ in range(8)]
    bodies = [ask(f"{PACED}\n@echo by {n}", metadata={"request_id": f"{n}"}) for n in range(7)]
    bodies.append(ask("be yourself", model="paced"))
    async with asyncio.TaskGroup() as tasks:
        clients = [
            tasks.create_task(read_to_the_end(session, lasting.gateways[n % 2 :], body, shown))
            for n, (body, shown) in enumerate(zip(bodies, seen, strict=True))
        ]
        while min(len(shown.text) for shown in seen) < 12:
            assert not any(client.done() for client in clients)
            await asyncio.sleep(0.02)
        lasting.nats.kill()
        lasting.nats.wipe()
        await lasting.nats.start_beside()
        await asyncio.to_thread(lasting.cluster.verb, "bootstrap")
        back_s = time.monotonic()
        await asyncio.gather(*clients)
    # What is left of the longest answer, and two sweeps.
    assert max(shown.events[-1].at_s for shown in seen) - back_s < 6 + 2 * SWEEP_S
    for n, shown in enumerate(seen[:-1]):
        assert (shown.text, shown.is_complete) == (f"{counted(60)}by {n}", True)
        found = await asyncio.to_thread(ended, lasting.other, shown.execution, "completed")
        assert found["steps"][-1]["text"] == shown.text
    assert (seen[-1].text, seen[-1].is_complete) == (words(60), True)
    assert serves(lasting.cluster)


# What took the longest


@pytest.mark.requirement("durable:gateway-dies", "idempotency:taken-over")
async def test_a_claim_that_its_gateway_left_behind_is_taken_over(
    lasting: Lasting, claimed: tuple[str, "concurrent.futures.Future[Killed]"]
) -> None:
    text, killed = claimed
    found = await asyncio.wrap_future(killed)
    assert text_of(found.reply) == words(5)
    assert found.took_s < 45
    assert len(await lasting.calls(text)) == 1
