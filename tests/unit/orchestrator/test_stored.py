"""A turn's state in messages and in the store: it comes back as it was, and older bytes are still read."""

from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract import messages
from kitemesh_contracts.codec import encode
from kitemesh_contracts.content import CallResult, Step, ToolCall, Usage
from kitemesh_contracts.errors import ContractViolation
from kitemesh_orchestrator import carried, stored
from kitemesh_orchestrator.states import Accepted, Asked, Calling, Ended, Generating, Limits, Running, State
from kitemesh_runtime.live_turns import Job
from unit.orchestrator.turns import FIRST, GENERATING, HOLD, START, asks, calling, spoken, tool_job

change: Final = msgspec.structs.replace

texts = st.text(max_size=12)
counts = st.integers(0, 2**40)
seconds = st.floats(0, 1e9, allow_nan=False)
tool_calls = st.builds(ToolCall, id=texts, name=texts, arguments=texts)
results = st.builds(CallResult, call=texts, text=texts, blob=st.none() | texts)
steps = st.builds(
    Step,
    step=st.integers(1, 25),
    attempt=st.integers(1, 6),
    last=counts,
    model=texts,
    text=texts,
    reasoning=texts,
    calls=st.lists(tool_calls, max_size=2).map(tuple),
    results=st.lists(results, max_size=2).map(tuple),
    texts=st.lists(texts, max_size=2).map(tuple),
)
running: dict[str, Any] = {
    "start": st.builds(change, st.just(START), gateway=texts, conversation=st.none() | texts, stream=st.booleans()),
    "ordinal": st.integers(0, 1000),
    "durable": st.booleans(),
    "held": st.booleans(),
    "steps": st.lists(steps, max_size=3).map(tuple),
    "usage": st.builds(Usage, input_tokens=counts, output_tokens=counts),
    "spent_s": seconds,
    "shown": st.lists(st.builds(spoken, texts), max_size=2).map(tuple),
    "calls_made": st.integers(0, 50),
}
jobs = st.builds(
    Job,
    kind=st.just("tool"),
    step=st.integers(1, 25),
    index=st.integers(0, 9),
    attempt=st.integers(1, 6),
    pool=texts,
    calls=st.lists(texts, max_size=2).map(tuple),
)
asked = st.builds(
    Asked,
    id=texts,
    name=texts,
    do=st.sampled_from(["run", "hold", "client", "done"]),
    arguments=texts,
    sha256=texts,
    version=texts,
    effect=st.sampled_from(["safe", "keyed", "once"]),
    pool=texts,
    sentence=texts,
    shown=texts,
    edited=st.booleans(),
)
generating = st.builds(Generating, **running, step=st.integers(1, 25), attempt=st.integers(1, 6))
callings = st.builds(
    Calling,
    **running,
    said=steps,
    asked=st.lists(asked, max_size=3).map(tuple),
    limits=st.builds(Limits, steps=st.integers(1, 25), tokens=st.none() | counts),
    jobs=st.lists(jobs, max_size=3).map(tuple),
    jobs_made=st.integers(0, 9),
    hold=st.none() | texts,
    expires_at_ms=counts,
)
states: st.SearchStrategy[State] = st.one_of(
    generating, callings, st.builds(Accepted, start=running["start"]), st.builds(Ended, start=running["start"])
)


@settings(deadline=None)
@given(states)
def test_a_carried_state_comes_back_as_it_was(state: State) -> None:
    assert carried.load(carried.save(state)) == state


@settings(deadline=None)
@given(st.one_of(generating, callings), st.integers(1, 1000))
def test_a_stored_state_comes_back_as_it_was_but_for_the_prompt(state: Running, version: int) -> None:
    live = stored.to_live(state, version)
    assert live.version == version
    assert stored.from_live(live) == change(state, shown=())
    assert stored.from_live(msgspec.json.decode(msgspec.json.encode(live), type=type(live))) == change(state, shown=())


def test_the_document_says_what_people_and_sweepers_ask_for() -> None:
    state = change(GENERATING, durable=True, start=change(START, key="k", request="r", gateway="gateway-2"))
    live = stored.to_live(state, 7)
    assert (live.id, live.tenant, live.key, live.request) == (START.turn, "acme", "k", "r")
    assert (live.conversation, live.ordinal, live.agent, live.model) == ("c-1", 3, "helper", "agent:helper")
    assert (live.gateway, live.mode, live.accepted_at_ms) == ("gateway-2", "classic", START.accepted_at_ms)
    assert live.jobs == (Job(kind="model", step=2, attempt=2, pool="fast"),)
    assert (live.steps, live.usage) == ((FIRST,), GENERATING.usage)


@pytest.mark.parametrize(
    ("state", "status", "mode", "hold"),
    [
        (GENERATING, "running", "classic", None),
        (change(GENERATING, held=True), "running", "durable", None),
        (calling(asks("run", "read"), jobs=(tool_job("read1"),)), "running", "classic", None),
        (calling(asks("hold", "pay")), "held", "durable", HOLD),
        (calling(asks("run", "read"), asks("hold", "pay"), jobs=(tool_job("read1"),)), "running", "durable", HOLD),
        (change(calling(asks("run", "pay")), hold=HOLD), "running", "classic", None),
    ],
)
def test_a_document_is_held_only_while_nothing_runs(state: Running, status: str, mode: str, hold: str | None) -> None:
    live = stored.to_live(state, 1)
    assert (live.status, live.mode, live.hold) == (status, mode, hold)


def test_the_current_step_is_shown_with_the_others_and_kept_once() -> None:
    state = calling(asks("run", "read", '{"q":"a needle"}'), jobs=(tool_job("read1"),))
    live = stored.to_live(state, 1)
    assert live.steps == (FIRST, state.said)
    assert b"Let me see." not in live.state
    kept = msgspec.json.decode(live.state)
    assert "steps" not in kept
    assert "jobs" not in kept
    assert "shown" not in kept


def test_a_jobs_attempt_is_the_documents() -> None:
    live = stored.to_live(change(GENERATING, durable=True), 1)
    raised = change(live, jobs=(change(live.jobs[0], attempt=5),))
    state = stored.from_live(raised)
    assert isinstance(state, Generating)
    assert state.attempt == 5

    two = (tool_job("read1"), tool_job("find1", index=1, pool="slow"))
    state = calling(asks("run", "read"), asks("run", "find", pool="slow"), jobs=two, durable=True)
    live = stored.to_live(state, 1)
    claimed = (two[0], change(two[1], attempt=2))
    assert stored.from_live(change(live, jobs=claimed)) == change(state, jobs=claimed, shown=())


@pytest.mark.parametrize("state", [b"", b"{}", b'{"type":"unheard"}', b"\xff"])
def test_a_document_that_cannot_be_read_violates_the_contract(state: bytes) -> None:
    live = change(stored.to_live(GENERATING, 1), state=state)
    with pytest.raises(ContractViolation):
        stored.from_live(live)
    with pytest.raises(ContractViolation):
        carried.load(msgspec.Raw(state))


def test_a_document_of_a_step_whose_calls_run_needs_that_step() -> None:
    live = stored.to_live(calling(asks("run", "read"), jobs=(tool_job("read1"),)), 1)
    with pytest.raises(ContractViolation):
        stored.from_live(change(live, steps=()))


@pytest.mark.parametrize("state", [GENERATING, calling(asks("run", "read"), jobs=(tool_job("read1"),))])
def test_the_ordinal_is_there_for_an_older_replica_even_when_no_conversation_is_kept(state: Running) -> None:
    state = change(state, ordinal=0)
    for written in (bytes(carried.save(state)), stored.to_live(state, 1).state):
        assert msgspec.json.decode(written)["ordinal"] == 0


def test_what_the_version_before_carried_is_still_read() -> None:
    start = encode(messages.START).decode()
    older = f'{{"type":"generating","start":{start},"ordinal":1,"step":1,"attempt":1}}'
    assert carried.load(msgspec.Raw(older.encode())) == Generating(start=messages.START, ordinal=1, step=1, attempt=1)
    older = f'{{"type":"accepted","start":{start}}}'
    assert carried.load(msgspec.Raw(older.encode())) == Accepted(start=messages.START)


def test_what_a_later_version_adds_is_ignored() -> None:
    newer = msgspec.json.decode(carried.save(GENERATING))
    newer["later"] = {"any": 1}
    assert carried.load(msgspec.Raw(msgspec.json.encode(newer))) == GENERATING
