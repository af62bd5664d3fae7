"""Decisions, expiry, cancels and new messages at the same moment, on two gateways: each race has one documented end."""

import asyncio
import concurrent.futures
import contextlib
import http.client
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from cluster import Cluster
from tool_cluster import (
    Gateway,
    Held,
    ToolCluster,
    another_gateway,
    approval,
    ask,
    called,
    calling,
    cancel,
    content,
    decide,
    ended,
    execution,
    hold,
    make_keys,
    question,
    resume,
    tool_cluster,
    tool_jobs,
    until,
    verdicts,
)

SEED = 20_250
RACERS = 100
ROUNDS = 24
CHAIN = 8
"""Steps of a turn that is cancelled while it calls, each with a keyed and a once call."""
LATE_S = 2.0


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToolCluster]:
    with tool_cluster(tmp_path_factory.mktemp("races")) as running:
        yield running


@pytest.fixture(scope="module")
def one(desk: ToolCluster) -> Cluster:
    return desk.cluster


@pytest.fixture(scope="module")
def two(desk: ToolCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with another_gateway(desk.cluster, tmp_path_factory.mktemp("second")) as gateway:
        yield gateway


class Answer(NamedTuple):
    """An HTTP answer and when it was there, by the clock of the stub's ledger; status 0: the connection broke."""

    status: int
    body: dict[str, Any]
    at_s: float


class Client:
    """Many requests at once."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def post(self, gateway: Cluster, path: str, body: Mapping[str, Any]) -> Answer:
        headers = {"Authorization": f"Bearer {gateway.key}"}
        try:
            async with self._session.post(gateway.origin + path, json=dict(body), headers=headers) as reply:
                return Answer(reply.status, await reply.json(), time.time())
        except (aiohttp.ClientError, OSError):
            return Answer(0, {}, time.time())

    async def decide(self, gateway: Cluster, held: Held, *decisions: Mapping[str, Any]) -> Answer:
        return await self.post(gateway, f"/v1/approvals/{held.approval}/decide", {"decisions": list(decisions)})

    async def resume(self, gateway: Cluster, body: Mapping[str, Any]) -> Answer:
        return await self.post(gateway, "/v1/chat/resume", body)

    async def ask(self, gateway: Cluster, text: str, agent: str = "clerk", **more: Any) -> Answer:
        return await self.post(gateway, "/v1/chat/completions", question(text, agent, **more))

    async def cancel(self, gateway: Cluster, name: str) -> Answer:
        return await self.post(gateway, f"/v1/executions/{name}/cancel", {})


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield Client(session)


def yes(held: Held, **more: Any) -> list[dict[str, Any]]:
    return verdicts(held.calls, approved=True, **more)


def no(held: Held) -> list[dict[str, Any]]:
    return verdicts(held.calls, approved=False, reason="no")


def effects(desk: ToolCluster, held: Held) -> int:
    """Count the effects of a hold with one call."""
    (call,) = held.calls
    return len(desk.stub.effects(call))


def effects_of(desk: ToolCluster, name: str) -> list[dict[str, Any]]:
    """Return what happened at the stub for an `id`, whichever call that was."""
    return [line for line in desk.stub.effects() if line["path"].partition("?")[0].endswith(f"/{name}")]


def when(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


# One hold, many decisions


def one_won(desk: ToolCluster, gateway: Cluster, held: Held, answers: list[Answer]) -> None:
    """See that one decision won, that everybody was told which, and that it is what happened."""
    call = approval(gateway, held)["calls"][0]
    won = call["decision"]
    told = [each.body["calls"][0]["decision"] for each in answers if each.status == 200 and "calls" in each.body]
    assert told
    assert all(each == won for each in told)
    assert {each.status for each in answers} <= {0, 200, 409}
    verdict = "approved" if won["approved"] else "denied"
    for each in answers:
        if each.status == 409:
            assert f"was {verdict}" in str(each.body["error"]["message"])
    ended(gateway, held, "completed")
    assert effects(desk, held) == int(won["approved"])
    audit = approval(gateway, held)["audit"]
    assert (
        len([row for row in audit if row["what"] == "approval.decided" and call["tool_execution_id"] in row["calls"]])
        == 1
    )


@pytest.mark.requirement("promise:P4", "approvals:one-winner")
@pytest.mark.parametrize("tool", ["pay", "wipe"])
async def test_of_a_hundred_decisions_at_once_over_two_gateways_one_wins(
    desk: ToolCluster, one: Cluster, two: Cluster, client: Client, tool: str
) -> None:
    for number in range(2):
        held = hold(one, calling((tool, {"id": f"hundred-{number}"})))
        ways = [yes(held), no(held), yes(held, arguments={"id": "edited"})]
        racing = [client.decide((one, two)[n % 2], held, *ways[n % 3]) for n in range(RACERS - 4)]
        racing += [client.resume((one, two)[n % 2], held.resumption(*held.calls[: n // 2])) for n in range(4)]
        random.Random(SEED + number).shuffle(racing)
        one_won(desk, one, held, list(await asyncio.gather(*racing)))


@pytest.mark.requirement("promise:P4", "approvals:one-winner")
async def test_of_a_hundred_decisions_of_one_call_one_wins_while_another_stays_held(
    desk: ToolCluster, one: Cluster, two: Cluster, client: Client
) -> None:
    both = hold(one, calling(("pay", {"id": "beside"}), ("wipe", {"id": "beside"})))
    held, rest = (both._replace(calls=(call,)) for call in both.calls)
    ways = [yes(held), no(held), yes(held, arguments={"id": "edited"})]
    answers = await asyncio.gather(*(client.decide((one, two)[n % 2], held, *ways[n % 3]) for n in range(RACERS)))
    assert approval(two, both)["status"] == "open"
    assert effects(desk, rest) == 0
    assert decide(two, both, *no(rest)).status == 200
    one_won(desk, one, held, answers)
    assert effects(desk, rest) == 0


@pytest.mark.requirement("promise:P4")
async def test_a_gateway_killed_in_the_middle_of_a_hundred_decisions_changes_nothing(
    desk: ToolCluster, one: Cluster, client: Client, tmp_path: Path
) -> None:
    with another_gateway(one, tmp_path) as doomed:
        held = hold(doomed, calling(("pay", {"id": "killed"})))
        ways = [yes(held), no(held)]
        racing = [
            asyncio.create_task(client.decide((doomed, one)[n % 2], held, *ways[n // 2 % 2])) for n in range(RACERS)
        ]
        await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
        doomed.process.kill()
        answers = await asyncio.gather(*racing)
    assert {each.status for each in answers} >= {0, 200}
    one_won(desk, one, held, list(answers))


@pytest.mark.requirement("promise:P4")
async def test_the_only_decision_of_a_gateway_that_is_killed_counts_once_or_not_at_all(
    desk: ToolCluster, one: Cluster, client: Client, tmp_path: Path
) -> None:
    with another_gateway(one, tmp_path) as doomed:
        held = [hold(doomed, calling(("wipe", {"id": f"only-{n}"}))) for n in range(12)]
        racing = [asyncio.create_task(client.decide(doomed, each, *yes(each))) for each in held]
        await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
        doomed.process.kill()
        await asyncio.gather(*racing)
    for each in held:
        if approval(one, each)["status"] == "decided":
            ended(one, each, "completed")
            assert effects(desk, each) == 1
        else:
            assert effects(desk, each) == 0
            assert "wipe" in content(resume(one, each.whole))
            assert effects(desk, each) == 1


# Two things at once


@pytest.mark.requirement("promise:P4", "race:approve-and-expiry")
async def test_approved_as_it_runs_out_a_call_runs_or_its_approval_is_refused(
    desk: ToolCluster, one: Cluster, two: Cluster, client: Client
) -> None:
    async def race(number: int) -> bool:
        asked = await client.ask(one, calling(("wipe", {"id": f"expiry-{number}"})), "hasty")
        held = held_of(asked)
        # From well before the end to well behind it.
        await asyncio.sleep(when(asked.body["kitemesh"]["expires_at"]) - time.time() + (number - ROUNDS / 2) * 0.008)
        answer = await client.decide(two, held, *yes(held))
        assert answer.status in {200, 410}, answer
        shown = await asyncio.to_thread(ended, one, held, "completed")
        ran = answer.status == 200
        assert effects(desk, held) == int(ran)
        assert called(shown)[held.calls[0]]["status"] == ("completed" if ran else "denied")
        kept = approval(two, held)
        assert kept["status"] == ("decided" if ran else "expired")
        assert not ran or when(kept["calls"][0]["decision"]["at"]) < when(kept["expires_at"])
        return ran

    assert set(await asyncio.gather(*map(race, range(ROUNDS)))) == {True, False}


def held_of(answer: Answer) -> Held:
    mine, message = answer.body["kitemesh"], answer.body["choices"][0]["message"]
    calls = tuple(call["id"] for call in message["tool_calls"])
    return Held(answer.body["model"], mine["approval_id"], mine["execution_id"], mine["conversation_id"], calls)


async def both(first: Callable[[], Any], second: Callable[[], Any], lead_s: float) -> tuple[Answer, Answer]:
    """Begin two things; the second one so much later, or earlier when it is negative."""

    async def after(pause_s: float, begin: Callable[[], Any]) -> Answer:
        await asyncio.sleep(max(0.0, pause_s))
        return Answer(*await begin())

    return await asyncio.gather(after(-lead_s, first), after(lead_s, second))


def leads(number: int, *, most_s: float = 0.02) -> float:
    """Spread the rounds of a race from one side well ahead to the other."""
    return (number / (ROUNDS - 1) * 2 - 1) * most_s


@pytest.mark.requirement("promise:P4", "race:approve-and-cancel")
async def test_approved_and_cancelled_at_once_a_call_runs_or_never_will(
    desk: ToolCluster, one: Cluster, two: Cluster, client: Client
) -> None:
    seen: Counter[str] = Counter()
    for number in range(ROUNDS):
        held = held_of(await client.ask(one, calling(("wipe", {"id": f"cancel-{number}"}))))
        approved, stopped = await both(
            lambda held=held: client.decide(two, held, *yes(held)),
            lambda held=held: client.cancel(one, held.execution),
            leads(number),
        )
        assert stopped.status == 200
        assert approved.status in {200, 410}
        ending = stopped.body["status"]
        ended(one, held, ending)
        began = {call["tool_execution_id"] for call in stopped.body.get("calls", ())}
        lines = desk.stub.effects(held.calls[0])
        assert [line for line in lines if line["at"] > stopped.at_s and line["id"] not in began] == []
        assert len(lines) <= 1
        if approved.status == 410 or approval(one, held)["status"] == "cancelled":
            assert (lines, ending) == ([], "cancelled")
        if ending == "completed":
            assert len(lines) == 1
        seen[f"{approved.status} {ending}"] += 1
    assert seen["410 cancelled"]
    assert seen["200 completed"] + seen["200 cancelled"]


@pytest.mark.requirement("race:approve-and-new-message", "held:supersede")
async def test_approved_as_a_new_message_comes_a_call_runs_before_it_or_is_superseded(
    desk: ToolCluster, one: Cluster, two: Cluster, client: Client
) -> None:
    seen: Counter[int] = Counter()
    for number in range(ROUNDS):
        held = held_of(await client.ask(one, calling(("wipe", {"id": f"new-{number}"}))))
        approved, answered = await both(
            lambda held=held: client.decide(two, held, *yes(held)),
            lambda held=held: client.ask(one, "@echo new", metadata={"conversation_id": held.conversation}),
            leads(number),
        )
        assert (answered.status, answered.body["choices"][0]["message"]["content"]) == (200, "new")
        assert approved.status in {200, 410}
        ran = approved.status == 200
        ended(one, held, "completed" if ran else "cancelled")
        assert approval(one, held)["status"] == ("decided" if ran else "cancelled")
        assert effects(desk, held) == int(ran)
        seen[approved.status] += 1
    assert set(seen) == {200, 410}


@pytest.mark.requirement("race:approve-and-deny")
async def test_approved_and_denied_at_once_one_of_both_is_refused(
    desk: ToolCluster, one: Cluster, two: Cluster, client: Client
) -> None:
    for number in range(6):
        held = held_of(await client.ask(one, calling(("pay", {"id": f"deny-{number}"}))))
        answers = await asyncio.gather(
            client.resume(one, held.whole), client.resume(two, held.resumption()), client.decide(two, held, *no(held))
        )
        statuses = [answer.status for answer in answers]
        assert statuses in ([200, 409, 409], [409, 200, 200])
        ended(one, held, "completed")
        assert effects(desk, held) == int(statuses[0] == 200)


@pytest.mark.requirement("resume:same-continuation", "race:approve-twice")
async def test_approved_twice_at_once_both_get_the_one_continuation(
    desk: ToolCluster, one: Cluster, two: Cluster, client: Client
) -> None:
    for number in range(6):
        held = held_of(await client.ask(one, calling(("wipe", {"id": f"twice-{number}"}))))
        answers = await asyncio.gather(client.resume(one, held.whole), client.resume(two, held.whole))
        first, second = (answer.body["choices"][0]["message"]["content"] for answer in answers)
        assert first == second
        assert effects(desk, held) == 1


@pytest.mark.requirement("race:approved-elsewhere-while-asking")
@pytest.mark.parametrize("way", ["decide", "resume"])
def test_who_asked_and_still_waits_gets_the_whole_answer_when_it_is_approved_elsewhere(
    desk: ToolCluster, one: Cluster, two: Cluster, way: str
) -> None:
    slow = ("look", {"id": "slow", "mode": "slow", "delay_ms": "700"})
    name = f"elsewhere-{way}"
    with concurrent.futures.ThreadPoolExecutor(1) as clients:
        began_s = time.monotonic()
        asking = clients.submit(ask, one, calling(slow, ("wipe", {"id": name})))
        shown = until(lambda: find(two, name))
        calls = tuple(call["tool_execution_id"] for call in shown["calls"])
        held = Held(shown["model"], shown["id"], shown["execution_id"], "", calls)
        if way == "decide":
            assert decide(two, held, *yes(held)).status == 200
            told = None
        else:
            told = content(resume(two, held.whole))
        first = content(asking.result())
    assert time.monotonic() - began_s < 5
    assert told in {None, first}
    assert "wipe" in first
    assert effects(desk, held) == 1


def find(gateway: Cluster, name: str) -> dict[str, Any] | None:
    """Return the open approval of a call with that `id`."""
    found = gateway.call("/v1/approvals?status=open").json()["data"]
    return next((each for each in found if each["calls"][0]["arguments"].get("id") == name), None)


# A new message while a turn is held, or runs


@pytest.mark.requirement("held:supersede")
def test_a_new_message_supersedes_the_hold(desk: ToolCluster, one: Cluster, two: Cluster) -> None:
    held = hold(one, calling(("wipe", {"id": "superseded"})))
    assert content(ask(two, "@echo next", metadata={"conversation_id": held.conversation})) == "next"
    shown = approval(one, held)
    assert (shown["status"], shown["reason"]) == ("cancelled", "a new message took its place")
    ended(one, held, "cancelled")
    assert resume(one, held.whole).status == 410
    assert effects(desk, held) == 0


@pytest.mark.requirement("held:supersede")
def test_what_has_not_begun_of_a_superseded_turn_never_does(desk: ToolCluster, one: Cluster, two: Cluster) -> None:
    slow = {"id": "busy", "mode": "slow", "delay_ms": "600"}
    with concurrent.futures.ThreadPoolExecutor(1) as clients:
        first = hold(one, calling(("wipe", {"id": "gone"})))
        talk = {"metadata": {"conversation_id": first.conversation}}
        assert resume(one, first.resumption()).status == 200
        asking = clients.submit(ask, one, calling(("look", slow), ("wipe", {"id": "mixed"})), **talk)
        until(lambda: find(two, "mixed"))
        assert content(ask(two, "@echo next", **talk)) == "next"
        assert asking.result().status == 409
    assert effects_of(desk, "mixed") == []


@pytest.mark.requirement("held:reject")
def test_a_new_message_is_rejected_with_what_is_in_its_way(desk: ToolCluster, one: Cluster, two: Cluster) -> None:
    held = hold(one, calling(("wipe", {"id": "in-the-way"})), "strict")
    talk = {"metadata": {"conversation_id": held.conversation}}
    for stream in (False, True):
        reply = ask(two, "@echo next", "strict", stream=stream, **talk)
        assert (reply.status, reply.headers["x-should-retry"]) == (409, "false")
        mine = reply.json()["error"]["kitemesh"]
        assert (mine["approval_id"], mine["expires_at"]) == (held.approval, approval(one, held)["expires_at"])
    assert "wipe" in content(resume(two, held.whole))
    assert content(ask(two, "@echo next", "strict", **talk)) == "next"
    assert effects(desk, held) == 1


@pytest.mark.requirement("held:queue")
def test_a_new_message_queues_behind_the_hold(desk: ToolCluster, one: Cluster, two: Cluster) -> None:
    held = hold(one, calling(("wipe", {"id": "first"})), "patient")
    with concurrent.futures.ThreadPoolExecutor(1) as clients:
        waiting = clients.submit(ask, two, "@echo next", "patient", metadata={"conversation_id": held.conversation})
        until(lambda: queue_of(desk, held.conversation))
        assert not waiting.done()
        assert "wipe" in content(resume(one, held.whole))
        assert content(waiting.result()) == "next"
    assert effects(desk, held) == 1


def queue_of(desk: ToolCluster, conversation: str) -> list[str]:
    """Return the turns that wait in a conversation."""
    with desk.store() as store:
        found = store["conversations"].find_one({"_id": {"$regex": f":{conversation}$"}})
    return [entry["turn"] for entry in found["waiting"]] if found else []


@pytest.mark.requirement("busy:reject", "busy:cancel-previous")
def test_a_new_message_while_a_stored_turn_runs_does_what_the_agent_says(
    desk: ToolCluster, one: Cluster, two: Cluster
) -> None:
    slow = ("look", {"id": "busy", "mode": "slow", "delay_ms": "900"})
    for agent, first_status, second_status in (("curt", 200, 409), ("hurried", 409, 200)):
        held = hold(
            one,
            calling(("wipe", {"id": agent}), then=calling(slow, then=calling(("note", {"id": f"{agent}-noted"})))),
            agent,
        )
        with concurrent.futures.ThreadPoolExecutor(1) as clients:
            resuming = clients.submit(resume, one, held.whole)
            until(lambda held=held: execution(two, held)["status"] == "running" and effects(desk, held))
            talk = {"metadata": {"conversation_id": held.conversation}}
            assert ask(two, "@echo next", agent, **talk).status == second_status
            assert resuming.result().status == first_status
        assert len(effects_of(desk, f"{agent}-noted")) == int(first_status == 200)


# Cancelling


class Streaming:
    """A streamed request whose answer has begun."""

    def __init__(self, gateway: Cluster, text: str, agent: str = "clerk", **more: Any) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
        headers = {"Authorization": f"Bearer {gateway.key}", "Content-Type": "application/json"}
        body = json.dumps(question(text, agent, stream=True, **more))
        self._connection.request("POST", "/v1/chat/completions", body, headers)
        self._reply = self._connection.getresponse()
        self.execution = self._reply.headers["x-execution-id"]

    def rest(self) -> bytes:
        return self._reply.read()

    def close(self) -> None:
        self._reply.close()
        self._connection.close()


@pytest.mark.requirement("cancel:classic-from-any-gateway")
def test_a_running_classic_turn_is_cancelled_from_another_gateway(one: Cluster, two: Cluster) -> None:
    with contextlib.closing(Streaming(one, "@delay_ms 20\n@tokens 1000")) as running:
        began_s = time.monotonic()
        assert cancel(two, running.execution).json() == {"id": running.execution, "status": "cancelled"}
        body = running.rest()
        assert time.monotonic() - began_s < LATE_S
    assert b"turn.cancelled" in body
    assert b"[DONE]" not in body
    assert ended(two, running.execution, "cancelled")["mode"] == "classic"
    assert cancel(one, running.execution).json()["status"] == "cancelled"


@pytest.mark.requirement("cancel:waiting")
def test_a_turn_that_waits_behind_another_is_cancelled_and_never_runs(
    desk: ToolCluster, one: Cluster, two: Cluster
) -> None:
    held = hold(one, calling(("wipe", {"id": "ahead"})), "patient")
    talk = {"metadata": {"conversation_id": held.conversation}}
    with concurrent.futures.ThreadPoolExecutor(1) as clients:
        waiting = clients.submit(ask, one, calling(("note", {"id": "behind"})), "patient", **talk)
        (turn,) = until(lambda: queue_of(desk, held.conversation))
        assert cancel(two, turn).json() == {"id": turn, "status": "cancelled"}
        reply = waiting.result()
    assert (reply.status, reply.headers["x-should-retry"]) == (409, "false")
    assert queue_of(desk, held.conversation) == []
    assert "wipe" in content(resume(one, held.whole))
    assert effects_of(desk, "behind") == []
    ended(two, turn, "cancelled")


@pytest.mark.requirement("cancel:waiting")
def test_a_turn_queued_behind_a_running_one_is_cancelled_and_the_running_one_is_not(
    desk: ToolCluster, one: Cluster, two: Cluster
) -> None:
    conversation = ask(one, "@echo begun").json()["kitemesh"]["conversation_id"]
    talk = {"metadata": {"conversation_id": conversation}}
    with (
        contextlib.closing(Streaming(one, "@delay_ms 20\n@tokens 60", **talk)) as running,
        concurrent.futures.ThreadPoolExecutor(1) as clients,
    ):
        waiting = clients.submit(ask, two, calling(("note", {"id": "queued"})), **talk)
        (turn,) = until(lambda: queue_of(desk, conversation))
        assert cancel(one, turn).json() == {"id": turn, "status": "cancelled"}
        assert waiting.result().status == 409
        assert b"[DONE]" in running.rest()
    assert effects_of(desk, "queued") == []


@contextlib.contextmanager
def frozen(cluster: Cluster, name: str) -> Iterator[None]:
    """Keep a process of the cluster from doing anything, for less time than it takes to be given up."""
    process = cluster.processes()[name]
    process.suspend()
    try:
        yield
    finally:
        process.resume()


@pytest.mark.requirement("cancel:waiting")
def test_a_turn_whose_model_job_still_queues_is_cancelled(desk: ToolCluster, one: Cluster, two: Cluster) -> None:
    conversation = ask(one, "@echo begun").json()["kitemesh"]["conversation_id"]
    with concurrent.futures.ThreadPoolExecutor(1) as clients:
        with frozen(one, "model-runner"):
            talk = {"metadata": {"conversation_id": conversation}}
            asking = clients.submit(ask, one, calling(("note", {"id": "never"})), **talk)
            turn = until(lambda: active_in(desk, conversation))
            assert cancel(two, turn).json() == {"id": turn, "status": "cancelled"}
        assert asking.result().status == 409
    assert effects_of(desk, "never") == []


def active_in(desk: ToolCluster, conversation: str) -> str | None:
    """Return the turn that has a conversation's lock."""
    with desk.store() as store:
        found = store["conversations"].find_one({"_id": {"$regex": f":{conversation}$"}})
    return found and found.get("active")


@pytest.mark.requirement("cancel:no-call-begins-after-it", "promise:P25")
def test_an_approved_call_that_still_queues_is_won_by_the_cancel(desk: ToolCluster, one: Cluster, two: Cluster) -> None:
    held = [hold(one, calling((tool, {"id": "queued"}))) for tool in ("pay", "wipe")]
    with frozen(one, "tool-executor"):
        for each in held:
            assert decide(one, each, *yes(each)).status == 200
        until(lambda: tool_jobs(one) == len(held))
        for each in held:
            assert cancel(two, each.execution).json() == {"id": each.execution, "status": "cancelled"}
    until(lambda: tool_jobs(one) == 0)
    assert [effects(desk, each) for each in held] == [0, 0]
    for each in held:
        shown = called(ended(two, each, "cancelled"))
        assert shown[each.calls[0]]["status"] == "cancelled"


@pytest.mark.requirement("cancel:held", "cancel:idempotent")
def test_held_and_ended_turns_are_cancelled_any_number_of_times(desk: ToolCluster, one: Cluster, two: Cluster) -> None:
    held = hold(one, calling(("wipe", {"id": "held"})))
    for gateway in (two, one, two):
        assert cancel(gateway, held.execution).json() == {"id": held.execution, "status": "cancelled"}
    assert effects(desk, held) == 0
    answered = ask(one, "@echo done").json()["kitemesh"]["execution_id"]
    for gateway in (two, one):
        assert cancel(gateway, answered).json() == {"id": answered, "status": "completed"}


@pytest.mark.requirement("executions:foreign-is-missing")
def test_another_tenants_execution_is_as_unknown_as_one_that_never_was(one: Cluster, two: Cluster) -> None:
    (foreign,) = make_keys(one, ("stranger", ("chat", "approve", "admin")))
    held = hold(one, calling(("wipe", {"id": "mine"})))
    never = "01a200c7-b2c7-7b8b-8f0a-6b20e4e5757f"
    told = set()
    with contextlib.closing(Streaming(one, "@delay_ms 20\n@tokens 100")) as running:
        for name in (held.execution, running.execution, never, "nobody-1"):
            for reply in (cancel(two, name, key=foreign), two.call(f"/v1/executions/{name}", key=foreign)):
                told.add((reply.status, reply.json()["detail"]))
        assert b"[DONE]" in running.rest()
    assert told == {(404, "There is no such execution")}
    assert execution(one, held)["status"] == "held"


# No call begins after a cancel


def chain(name: str, *, first: str) -> str:
    """Write a turn of many steps with effects; the first one is held."""
    steps = [calling((first, {"id": f"{name}-0"}))]
    steps += [calling(("charge", {"id": f"{name}-{n}"}), ("note", {"id": f"{name}-{n}"})) for n in range(1, CHAIN)]
    return "\n@then\n".join(steps)


@pytest.mark.requirement("promise:P25", "cancel:no-call-begins-after-it")
@pytest.mark.parametrize("races", [150, pytest.param(500, marks=pytest.mark.chaos)])
async def test_after_a_cancel_no_call_with_an_effect_begins(
    desk: ToolCluster, one: Cluster, two: Cluster, client: Client, races: int
) -> None:
    chance = random.Random(SEED)
    seen: Counter[str] = Counter()

    async def race(number: int, pause_s: float) -> tuple[str, Answer]:
        name = f"after-{races}-{number}"
        held = held_of(await client.ask(one, chain(name, first=("pay", "wipe")[number % 2])))
        approved = await client.decide((one, two)[number % 2], held, *yes(held))
        assert approved.status == 200
        await asyncio.sleep(pause_s)
        stopped = await client.cancel((two, one)[number % 2], held.execution)
        assert stopped.status == 200
        seen[stopped.body["status"]] += 1
        seen["begun"] += bool(stopped.body.get("calls"))
        return name, stopped

    told: list[tuple[str, Answer]] = []
    for first in range(0, races, 10):
        told += await asyncio.gather(*(race(n, chance.uniform(0.0, 0.5)) for n in range(first, first + 10)))
    await asyncio.to_thread(until, lambda: tool_jobs(one) == 0)
    lines = desk.stub.effects()
    assert max(Counter(line["id"] for line in lines).values()) == 1
    begun: Counter[str] = Counter()
    for name, stopped in told:
        known = {call["tool_execution_id"] for call in stopped.body.get("calls", ())}
        mine = [line for line in lines if line["path"].rpartition("/")[2].startswith(f"{name}-")]
        assert [line for line in mine if line["at"] > stopped.at_s and line["id"] not in known] == []
        begun["before"] += sum(line["at"] <= stopped.at_s for line in mine)
        begun["as told"] += sum(line["at"] > stopped.at_s for line in mine)
        begun["none"] += not mine
    print(f"\n{races} races: {dict(seen)}, effects {dict(begun)}")
    assert seen["cancelled"] > races / 3
    assert min(seen["begun"], begun["before"]) > races / 5


@pytest.mark.requirement("promise:P25")
def test_a_cancelled_classic_turn_calls_nothing_two_seconds_later(
    desk: ToolCluster, one: Cluster, two: Cluster
) -> None:
    chance = random.Random(SEED)
    pauses_s = [chance.uniform(0.0, 0.8) for _ in range(32)]

    def race(number: int) -> tuple[str, float]:
        name = f"classic-{number}"
        step = calling(("note", {"id": name, "mode": "slow", "delay_ms": "120"}))
        text = "\n@then\n".join([f"@echo begun\n{step}", *[step] * 22])
        with contextlib.closing(Streaming(one, text)) as running:
            time.sleep(pauses_s[number])
            assert cancel((one, two)[number % 2], running.execution).status == 200
            at_s = time.time()
            assert b"turn.cancelled" in running.rest()
        return name, at_s

    with concurrent.futures.ThreadPoolExecutor(16) as clients:
        told = list(clients.map(race, range(32)))
    # Uncancelled, each of them would go on for longer than that.
    until(lambda: time.time() > max(at_s for _, at_s in told) + LATE_S + 0.5)
    noted = {name: [line["at"] for line in effects_of(desk, name)] for name, _ in told}
    assert [name for name, at_s in told if max(noted[name], default=0.0) > at_s + LATE_S] == []
    print(
        f"\nclassic: latest effect {max(at - at_s for name, at_s in told for at in noted[name]):.3f} s after its cancel"
    )
