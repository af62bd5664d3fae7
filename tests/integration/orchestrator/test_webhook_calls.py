"""A webhook's call on its way through the engine: what an executor hands back is not lost."""

import msgspec

from integration.orchestrator.held_turns import held, with_tools
from integration.orchestrator.rig import Rig
from kitemesh_contracts import codec
from kitemesh_contracts.events import StepReleased


async def test_a_webhooks_call_that_a_stopping_executor_hands_back_is_sent_with_the_next_attempt(rig: Rig) -> None:
    begun = msgspec.structs.replace(with_tools(), tenant="hooked")
    await held(rig, begun, ("wipe", "{}"))
    notice = await rig.tool_job()
    assert [(call.name, notice.attempt) for call in notice.calls] == [("webhook_desk", 1)]
    job = notice
    for attempt in (2, 3):
        handed_back = StepReleased(
            turn=job.turn,
            tenant="hooked",
            step=job.step,
            attempt=job.attempt,
            reason="stopping",
            job=msgspec.Raw(codec.encode(job)),
        )
        await rig.event(handed_back)
        job = await rig.tool_job()
        assert (job.calls, job.attempt) == (notice.calls, attempt)
        # Its receiver is told again under the same id, and a failure is tried again from what it carries.
        assert codec.decode(codec.JOB, bytes(job.carry)).calls == notice.calls
