"""Turns up to their hold, and what the stores and queues have of them."""

import msgspec

from integration.orchestrator.rig import Rig, start
from kitemesh_contracts import subjects
from kitemesh_contracts.commands import Generate, StartTurn
from kitemesh_contracts.content import ToolMessage
from kitemesh_contracts.ids import hold_id
from kitemesh_runtime.holds import Hold, Verdict
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.turns import TurnRecord


def with_tools(agent: str = "doer", **more: object) -> StartTurn:
    begun = start(**more)
    return msgspec.structs.replace(begun, route=msgspec.structs.replace(begun.route, agent=agent))


async def hold_of(rig: Rig, turn: str, step: int = 1) -> Hold:
    found = await rig.stores.holds.get("acme", hold_id(turn, step))
    assert found is not None
    return found


async def live_of(rig: Rig, turn: str) -> LiveTurn:
    found = await rig.stores.live_turns.get("acme", turn)
    assert isinstance(found, LiveTurn)
    return found


async def record_of(rig: Rig, turn: str) -> TurnRecord:
    found = await rig.stores.live_turns.get("acme", turn)
    assert isinstance(found, TurnRecord)
    return found


async def held(rig: Rig, begun: StartTurn, *calls: tuple[str, str]) -> tuple[Generate, tuple[str, ...]]:
    """Run a turn up to its hold."""
    await rig.start(begun)
    job = await rig.job()
    ids = await rig.call(job, *calls)
    closing = await rig.closing()
    assert closing.outcome == "held"
    return job, ids


async def queued(rig: Rig, turn: str, pool: str = "default") -> int:
    """Count the messages that the tools' queue of a pool keeps of a turn."""
    question = msgspec.json.encode({"subjects_filter": subjects.tool_jobs_of(turn, pool)})
    info = msgspec.json.decode(await rig.bus.request("$JS.API.STREAM.INFO.KM_TOOL", question, timeout_s=2.0))
    return sum(info["state"].get("subjects", {}).values())


def results_in(job: Generate) -> list[str]:
    return [message.text for message in job.messages if isinstance(message, ToolMessage)]


async def decide(rig: Rig, hold: Hold, **verdicts: Verdict) -> Hold:
    decided = await rig.stores.holds.decide(
        "acme", hold.id, {call.id: verdicts[call.name] for call in hold.calls if call.name in verdicts}
    )
    assert decided.won
    assert decided.hold is not None
    return decided.hold
