"""Where the time went, as answers tell it."""

import json
from typing import Any

from msgspec.structs import replace

from kitemesh_contracts.deltas import HoldRef, TurnEnded
from kitemesh_contracts.events import StepTimings
from kitemesh_gateway.dialects.base import Facts
from kitemesh_gateway.dialects.completions_encoder import CompletionsEncoder
from kitemesh_gateway.hops import hops_of, server_timing

ENDED = TurnEnded(
    turn="t",
    tenant="acme",
    outcome="completed",
    step=1,
    attempt=1,
    timings=StepTimings(
        queued_ms=1.256, first_token_ms=20.0, total_ms=400.0, start_queued_ms=0.5, orchestrator_ms=1.0, runner_ms=0.25
    ),
    store_ms=2.125,
)
ALL = {"start_queue": 0.5, "orchestrator": 1.0, "model_queue": 1.26, "runner": 0.25, "provider": 20.0, "store": 2.12}


def test_a_closing_event_tells_of_every_hop() -> None:
    assert hops_of(ENDED) == ALL


def test_hops_that_took_no_time_are_not_told() -> None:
    ended = replace(ENDED, timings=StepTimings(queued_ms=0.001, first_token_ms=None, start_queued_ms=-3.0))
    assert hops_of(ended) == {"store": 2.12}


def test_what_a_replay_could_not_repeat_is_not_told() -> None:
    assert hops_of(ENDED, again=True) == {hop: ms for hop, ms in ALL.items() if hop != "store"}
    held = replace(ENDED, outcome="held", hold=HoldRef(id="h", expires_at_ms=1))
    assert hops_of(held, again=True) == {}
    assert hops_of(held) == ALL


def test_the_header_lists_hops_in_order() -> None:
    assert (
        server_timing({"gateway": 1.0, "relay": 0.0, "total": 1234567.891}) == "gateway;dur=1.0, total;dur=1234567.89"
    )


FACTS = Facts(turn="t", model="m", created_s=1, label="r", conversation=None, include_usage=False)


def last_words(*, resumable: bool) -> dict[str, Any]:
    """Return what the last chunk of a stream says of its turn."""
    facts = replace(FACTS, resumable=resumable)
    *_, finish, done, _ = CompletionsEncoder(facts).end(ENDED, ()).split(b"\n\n")
    assert done.endswith(b"data: [DONE]")
    words: dict[str, Any] = json.loads(finish.split(b"data: ")[1])["kitemesh"]
    return words


def test_a_streams_last_event_says_where_the_time_went() -> None:
    assert last_words(resumable=False)["timings"] == ALL
    assert last_words(resumable=True)["timings"] == hops_of(ENDED, again=True)
    assert b"timings" not in CompletionsEncoder(FACTS).whole(ENDED)
