"""Workers that stand still for three leases and come back, and some that die of their jobs: one effect, one answer.

Both run beside each other, each in a cluster of its own, since most of their time is waiting.
"""

import asyncio
import base64
import concurrent.futures
import contextlib
import http.client
import json
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import msgspec
import pytest
from pymongo import MongoClient

from chaos.effect_catalog import FAR_TOOL, tool_of
from chaos.faulty_cluster import Faulty, faulty_cluster
from chaos.rest import await_rest
from cluster import GROUP, Reply, streamed_text
from kitemesh_contracts import subjects, topology
from kitemesh_runtime.bus_nats import open_bus
from tool_stub import read_ledger

PATIENCE_S = 60.0
FROZEN_S = 3 * topology.WORKER_ACK_WAIT_S + 0.5
EFFECT_MS = 2000
"""A tool takes so long: its executor is frozen between the effect and the answer."""
POISON = "tool.after_fetch"
MODEL_POISON = "run.after_fetch"
DELIVERIES = 4

Document = dict[str, Any]


class Held(NamedTuple):
    """A turn that waits for a person."""

    execution: str
    approval: str
    call: str


class Thawed(NamedTuple):
    """Turns over which a tool-executor and a model-runner stood still, when both are back and nothing is left to do.

    Attributes:
        told: What the client of each was told.
        before: The document of each as it was when its client had been told.
        after: The same, at rest.
        rows: The ledger's rows, by turn.

    """

    faulty: Faulty
    turns: dict[str, Held]
    told: dict[str, Reply]
    before: dict[str, Document]
    after: dict[str, Document]
    rows: dict[str, Document]


class Poisoned(NamedTuple):
    """A cluster with jobs that kill every worker, their clients, and what another was told meanwhile.

    Attributes:
        clients: Of two jobs that kill tool-executors.
        model_client: Of one that kills model-runners.

    """

    faulty: Faulty
    clients: list["concurrent.futures.Future[Reply]"]
    beside: Reply
    model_client: "concurrent.futures.Future[Reply]"


ANSWERS = {
    "once": "told of what nobody knows",
    "keyed": "told of what was done again",
    "safe": " ".join(f"word{number}" for number in range(40)),
}


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Poisoned]:
    with faulty_cluster(tmp_path_factory.mktemp("poisoned"), delay_ms=10) as faulty:
        held = hold(faulty, tool_of("once", held=True), "poison", "never said")
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            faulty.arm(POISON, 100)
            clients = [
                pool.submit(approve, faulty, held),
                pool.submit(faulty.cluster.chat, f'@call {FAR_TOOL} {{"tag": "far-poison"}}\n@then\n@echo never said'),
            ]
            # The two pools' executors have died once each, so no model has anything more to say there.
            until(lambda: faulty.left(POISON) <= 100 - len(clients))
            beside = faulty.cluster.chat("@echo alive")
            faulty.arm(MODEL_POISON, 100)
            yield Poisoned(faulty, clients, beside, pool.submit(faulty.cluster.chat, "@echo never"))


@pytest.fixture(scope="module")
def thawed(poisoned: Poisoned, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thawed]:
    with faulty_cluster(tmp_path_factory.mktemp("frozen"), delay_ms=EFFECT_MS) as faulty:
        yield freeze_and_thaw(faulty)


def freeze_and_thaw(faulty: Faulty) -> Thawed:
    """Have workers stand still while each has work, let others take over, and let the first ones go on."""
    cluster = faulty.cluster
    turns = {name: hold(faulty, tool_of(name, held=True), name, ANSWERS[name]) for name in ("safe", "once", "keyed")}
    before: dict[str, Document] = {}

    def told(name: str) -> Reply:
        reply = approve(faulty, turns[name])
        before[name] = document_of(faulty, turns[name])
        return reply

    with concurrent.futures.ThreadPoolExecutor(3) as pool, stream(faulty, turns["safe"]) as reading:
        seen = reading.readline()
        while seen.count(b'"content":"word') < 3:
            seen += reading.readline()
        others = {name: pool.submit(told, name) for name in ("once", "keyed")}
        until(lambda: {turns[name].call for name in others} <= {line["id"] for line in faulty.stub.effects()})
        frozen = [cluster.kill(name, signal.SIGSTOP) for name in ("tool-executor", "model-runner")]
        end_s = time.monotonic() + FROZEN_S
        try:
            faulty.replicas.start("tool-executor-b", "tool-executor")
            faulty.replicas.start("model-runner-b", "model-runner")
            for name in others:
                until(partial(is_noted, faulty, "tool-executor-b", turns[name], event="call.ended"))
            until(lambda: [job["attempt"] for job in document_of(faulty, turns["safe"])["jobs"]] == [2])
            until(lambda: time.monotonic() > end_s)
        finally:
            thaw = [cluster.kill(name, signal.SIGCONT) for name in ("tool-executor", "model-runner")]
        assert thaw == frozen
        seen += reading.read()
        before["safe"] = document_of(faulty, turns["safe"])
        replies = {name: future.result() for name, future in others.items()}
    replies["safe"] = Reply(reading.status, dict(reading.headers), seen)
    # Each has said its late word once it has noted the end of its work.
    for name in others:
        until(partial(is_noted, faulty, "tool-executor", turns[name], event="call.ended"))
    until(partial(is_left, faulty, "model-runner", turns["safe"]))
    at_rest(faulty)
    return Thawed(
        faulty,
        turns,
        replies,
        before,
        {name: document_of(faulty, held) for name, held in turns.items()},
        {name: stored(faulty, "ledger", turns[name].call) for name in others},
    )


def hold(faulty: Faulty, tool: str, tag: str, answer: str) -> Held:
    """Have a call held."""
    pace = "@delay_ms 400\n" if tag == "safe" else ""
    reply = faulty.cluster.chat(f'@call {tool} {{"tag": "{tag}"}}\n@then\n{pace}@echo {answer}')
    assert reply.status == 200, reply.body
    body = reply.json()
    (call,) = body["choices"][0]["message"]["tool_calls"]
    return Held(body["kitemesh"]["execution_id"], body["kitemesh"]["approval_id"], call["id"])


def approval_of(held: Held, *, streamed: bool) -> Document:
    approved = [held.call]
    return {
        "model": GROUP,
        "approval_id": held.approval,
        "approved_tool_execution_ids": approved,
        "stream": streamed,
    }


def approve(faulty: Faulty, held: Held) -> Reply:
    return faulty.cluster.call("/v1/chat/resume", approval_of(held, streamed=False))


@contextlib.contextmanager
def stream(faulty: Faulty, held: Held) -> Iterator[http.client.HTTPResponse]:
    """Approve a hold and read the answer while inside."""
    connection = http.client.HTTPConnection("127.0.0.1", faulty.cluster.port, timeout=PATIENCE_S)
    headers = {"Authorization": f"Bearer {faulty.cluster.key}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/resume", json.dumps(approval_of(held, streamed=True)), headers)
    with contextlib.closing(connection), connection.getresponse() as response:
        yield response


def document_of(faulty: Faulty, held: Held) -> Document:
    return stored(faulty, "turns", held.execution)


def stored(faulty: Faulty, collection: str, name: str) -> Document:
    environ = faulty.cluster.environment()
    with MongoClient[Document](environ["KITEMESH_MONGO_URL"]) as client:
        found = client[environ["KITEMESH_MONGO_DATABASE"]][collection].find_one({"_id": name})
    assert found is not None
    return found


def is_noted(faulty: Faulty, service: str, held: Held, **line: object) -> bool:
    """Tell whether a service has logged such a line of a turn."""
    lines = map(json.loads, (faulty.cluster.data / "logs" / f"{service}.log").read_text().splitlines())
    return any({"turn": held.execution, **line}.items() <= each.items() for each in lines)


def is_left(faulty: Faulty, service: str, held: Held) -> bool:
    """Tell whether a service has logged that it left a job of a turn to whoever has it by now."""
    lines = map(json.loads, (faulty.cluster.data / "logs" / f"{service}.log").read_text().splitlines())
    return any(
        line["event"] == "delivery.outdated" and line["subject"].endswith(f".{held.execution}") for line in lines
    )


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def at_rest(faulty: Faulty) -> None:
    assert asyncio.run(await_rest(faulty.cluster)) == []


def text(reply: Reply) -> str:
    assert reply.status == 200, reply.body
    return str(reply.json()["choices"][0]["message"]["content"])


def result_of(turn: Document) -> Document:
    (found,) = turn["steps"][0]["results"]
    return dict(found)


def test_a_once_call_of_a_frozen_executor_is_not_repeated_and_its_late_result_is_kept_as_late(thawed: Thawed) -> None:
    turn = thawed.after["once"]
    assert text(thawed.told["once"]) == turn["answer"]["text"] == ANSWERS["once"]
    assert result_of(turn)["error"]["code"] == "tool.outcome_unknown"
    assert len(effects(thawed, "once")) == 1
    row = thawed.rows["once"]
    assert (row["state"], row["late"]) == ("unknown", True)
    assert row["result"]["text"]
    assert thawed.before["once"] == turn


def test_a_keyed_call_of_a_frozen_executor_is_sent_again_under_its_key_and_the_late_result_is_refused(
    thawed: Thawed,
) -> None:
    turn = thawed.after["keyed"]
    assert text(thawed.told["keyed"]) == turn["answer"]["text"] == ANSWERS["keyed"]
    sent = effects(thawed, "keyed")
    assert [line["replay"] for line in sent] == [False, True]
    assert {line["id"] for line in sent} == {thawed.turns["keyed"].call}
    row = thawed.rows["keyed"]
    assert (row["state"], row["late"]) == ("finished", False)
    assert row["result"] == result_of(turn)
    assert thawed.before["keyed"] == turn


def test_an_answer_that_a_frozen_runner_began_is_shown_once_and_whole(thawed: Thawed) -> None:
    turn, reply = thawed.after["safe"], thawed.told["safe"]
    assert reply.status == 200
    assert reply.body.rstrip().endswith(b"data: [DONE]"), reply.body
    assert streamed_text(reply.body) == turn["answer"]["text"] == ANSWERS["safe"]
    assert (turn["status"], thawed.before["safe"]) == ("completed", turn)
    assert is_noted(thawed.faulty, "model-runner-b", thawed.turns["safe"], event="step.ended", step=2, attempt=2)


def effects(thawed: Thawed, tag: str) -> list[Document]:
    """Return every request of a tag that reached the stub, replays included."""
    lines = read_ledger(thawed.faulty.stub.ledger)
    return [line for line in lines if line["path"].partition("?")[0].endswith(f"/{tag}")]


@pytest.mark.requirement("promise:P24")
def test_a_job_that_kills_its_runner_each_time_is_given_up_and_its_client_told(
    poisoned: Poisoned, thawed: Thawed
) -> None:
    faulty = poisoned.faulty
    reply = poisoned.model_client.result(timeout=PATIENCE_S)
    assert reply.status == 502, reply.body
    assert reply.json()["error"]["message"]
    letter = dead_letter(faulty, topology.MODEL, reply.headers["x-execution-id"])
    assert (letter["stream"], letter["deliveries"]) == (topology.MODEL, DELIVERIES)
    assert 100 - faulty.left(MODEL_POISON) == DELIVERIES
    faulty.disarm(MODEL_POISON)
    assert text(faulty.cluster.chat("@echo alive")) == "alive"


@pytest.mark.requirement("promise:P24")
def test_a_tool_job_that_kills_every_executor_is_given_up_and_its_turn_told(poisoned: Poisoned, thawed: Thawed) -> None:
    faulty = poisoned.faulty
    assert text(poisoned.beside) == "alive"
    for client in poisoned.clients:
        reply = client.result(timeout=PATIENCE_S)
        assert reply.status == 502, reply.body
        assert reply.json()["error"]["message"]
        turn = stored(faulty, "turns", reply.headers["x-execution-id"])
        assert (turn["status"], turn["error"]["code"]) == ("failed", "turn.exhausted")
        letter = dead_letter(faulty, topology.TOOL, turn["_id"])
        assert (letter["stream"], letter["deliveries"]) == (topology.TOOL, DELIVERIES)
    assert 100 - faulty.left(POISON) <= DELIVERIES * len(poisoned.clients)
    faulty.disarm()
    at_rest(faulty)
    assert faulty.stub.effects() == []
    for tool in (tool_of("once"), FAR_TOOL):
        assert text(faulty.cluster.chat(f'@call {tool} {{"tag": "next"}}\n@then\n@echo served')) == "served"


def dead_letter(faulty: Faulty, stream: str, turn: str) -> Document:
    """Return the reference that a turn's message left when it was given up."""

    async def get() -> bytes:
        async with open_bus(faulty.cluster.environment()["KITEMESH_NATS_URL"], name="test") as bus:
            asked = json.dumps({"last_by_subj": subjects.dead(stream, turn)}).encode()
            return await bus.request(f"$JS.API.STREAM.MSG.GET.{topology.DEAD}", asked, timeout_s=5)

    letter: Document = msgspec.json.decode(base64.b64decode(msgspec.json.decode(asyncio.run(get()))["message"]["data"]))
    return letter
