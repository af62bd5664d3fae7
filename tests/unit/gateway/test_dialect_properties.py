"""Whatever is lost, late or told again: no stream of a dialect ends its client, and each has the whole answer."""

import asyncio
import json
from random import Random
from typing import Any, Final

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from kitemesh_contracts import subjects
from kitemesh_contracts.deltas import ResultDelta
from kitemesh_gateway import backlog, catching_up, positions
from kitemesh_gateway.dialects.agents_encoder import AgentsEncoder
from kitemesh_gateway.dialects.base import Encoder, Facts
from kitemesh_gateway.dialects.kernel2_encoder import KernelEncoder
from kitemesh_gateway.dialects.run_chat import RunChat
from kitemesh_gateway.positions import Position
from unit.gateway.rig import TURN
from unit.gateway.streamed_turns import Attempt, Cluster, Plan, plan
from unit.gateway.test_stream_properties import CASES, id_of, read

TURNS: Final = 40
"""For each case and dialect."""
CUTS: Final = 4
SURE: Final = sorted(case for case in CASES if not CASES[case].others)
"""Cases in which no attempt tells something else than was shown, so that every stream can go on."""
DONE: Final = {"type": "done"}


def encoder_of(dialect: str) -> Encoder:
    facts = Facts(
        turn=TURN, model="m", created_s=1, label="r", conversation="c", include_usage=False, resumable=True, row=1
    )
    if dialect == "agents":
        return AgentsEncoder(facts)
    return KernelEncoder(facts) if dialect == "kernel2" else RunChat(dict).encoder(facts)


def with_results(turn: Plan) -> Plan:
    """Have each step begin with what came of the calls of the step before."""
    attempts = []
    for step, attempt, frames in turn.attempts:
        results = turn.steps[step - 2].results if step > 1 else ()
        items = tuple(ResultDelta(call=result.call, text=result.text) for result in results)
        first = tuple(replace(frame, items=(*items, *frame.items)) for frame in frames[:1])
        attempts.append(Attempt(step, attempt, (*first, *frames[1:])))
    return turn._replace(attempts=tuple(attempts))


def data_of(event: bytes) -> dict[str, Any]:
    (line,) = [line for line in event.decode().split("\n") if line.startswith("data: ")]
    text = line.removeprefix("data: ")
    return DONE if text == "[DONE]" else dict(json.loads(text))


class Message:
    """A message as the AI SDK has it: what would end its chat is an error here."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.calls: dict[str, dict[str, Any]] = {}
        self.ends: list[str] = []
        self._open: set[str] = set()

    def take(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        block, _, what = kind.partition("-")
        if what == "start" and block in ("text", "reasoning"):
            self._open.add(event["id"])
        elif what == "delta":
            assert event["id"] in self._open, event
            self.texts += [event["delta"]] if block == "text" else []
        elif what == "end":
            self._open.remove(event["id"])
        elif kind == "tool-input-start":
            self.calls.setdefault(event["toolCallId"], {})
        elif block == "tool":
            self.calls[event["toolCallId"]][kind] = event
        elif kind == "finish-step":
            assert not self._open, event
        elif kind in ("finish", "error", "done"):
            assert not self._open, event
            self.ends.append(kind)
        else:
            assert kind in ("start", "start-step"), event


def check_message(turn: Plan, events: list[dict[str, Any]]) -> None:
    message = Message()
    for event in events:
        message.take(event)
    if turn.outcome == "failed":
        assert message.ends == ["error", "done"]
        return
    assert message.ends == ["finish", "done"]
    assert "".join(message.texts) == "".join(step.text for step in turn.steps)
    *before, last = turn.steps
    for call in (call for step in before for call in step.calls):
        assert message.calls[call.id]["tool-input-available"]["input"] == {}
        assert message.calls[call.id]["tool-output-available"]["output"] == "ok"
    for call in last.calls if turn.outcome == "held" else ():
        assert message.calls[call.id]["tool-input-available"]["input"] == {}
        assert message.calls[call.id]["tool-approval-request"]["approvalId"] == call.id


def check_rows(turn: Plan, events: list[dict[str, Any]]) -> None:
    begun, *deltas, last = events
    assert DONE not in events
    assert begun["type"] == "start"
    assert {event["type"] for event in deltas} <= {"delta"}
    if turn.outcome == "failed":
        assert last["type"] == "error"
        return
    text = "\n\n".join(step.text for step in turn.steps if step.text)
    assert "".join(event["content"] for event in deltas) == text
    assert last["message"]["content"] == (None if turn.outcome == "held" else text)


def check_chunks(turn: Plan, events: list[dict[str, Any]]) -> None:
    *chunks, done = events
    assert done is DONE
    assert DONE not in chunks
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert len(choices) == len(chunks)
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
    if turn.outcome != "failed":
        text = "\n\n".join(step.text for step in turn.steps if step.text)
        assert "".join(choice["delta"].get("content", "") for choice in choices) == text


CHECKS: Final = {"run_chat": check_message, "agents": check_rows, "kernel2": check_chunks}


async def check(case: str, dialect: str, seed: int) -> None:
    """Read a turn through one connection after another, and what came as its client does."""
    chance = Random(f"{case}/{dialect}/{seed}")
    turn = with_results(plan(chance, CASES[case]))
    cluster = Cluster(chance, CASES[case], turn)
    got: list[bytes] = []
    position: Position | None = None
    for cut in range(CUTS + 1):
        for _ in range(chance.choice([0, 0, 1, 5, 40])):
            cluster.go_on()
        most = chance.randint(0, 20) if cut < CUTS else None
        reading = await read(cluster, encoder_of(dialect), position, chance, most=most)
        assert reading.refusal is None
        got += reading.events
        if reading.is_over:
            break
        while got and id_of(got[-1]) is None:
            # An error is told again.
            got.pop()
        last = id_of(got[-1]) if got else None
        position = None if last is None else positions.parse(last)[1]
    CHECKS[dialect](turn, [data_of(event) for event in got])


@pytest.mark.requirement("run-chat:event-ids", "resume:nothing-is-missed")
@pytest.mark.parametrize("dialect", CHECKS)
@pytest.mark.parametrize("case", SURE)
async def test_whatever_fails_no_stream_ends_its_client(
    case: str, dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catching_up, "PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(catching_up, "FAILED_AGAIN_S", (0.0,))
    monkeypatch.setattr(catching_up, "SLICE_PIECES", 3)
    monkeypatch.setattr(subjects, "OUT_BLOCK", 3)
    monkeypatch.setattr(backlog, "MAX_FRAMES", 4)
    for seed in range(TURNS):
        try:
            with capture_logs():
                async with asyncio.timeout(10):
                    await check(case, dialect, seed)
        except BaseException as exc:
            exc.add_note(f"{case}, {dialect}, seed {seed}")
            raise
