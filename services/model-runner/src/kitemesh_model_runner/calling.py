"""What one target is asked: the call, put together right before it is made. How it is answered is not known here."""

import asyncio

from kitemesh_model_runner.attempt import Attempt
from kitemesh_model_runner.files import Files
from kitemesh_model_runner.provider import ModelCall, Prefix
from kitemesh_model_runner.routing import Target
from kitemesh_runtime.failpoints import reach


async def prepare(
    files: Files, attempt: Attempt, scope: asyncio.Timeout, prefix: Prefix | None, target: Target
) -> ModelCall:
    """Return the call, with the files that the target's model can be shown.

    Args:
        files: Where they are.
        attempt: For whom; it is told that the target is asked now.
        scope: Ends with the time of the attempt.
        prefix: Behind what to go on.
        target: Who is asked.

    Raises:
        Unavailable: The store does not answer.

    """
    job = attempt.job
    prompt = await files.fetch(job.tenant, job.messages, target.can)
    await reach("run.before_upstream")
    attempt.ask()
    due_s = scope.when()
    assert due_s is not None  # noqa: S101  it was opened with a time
    return ModelCall(
        job.turn,
        job.step,
        target.upstream,
        prompt.messages,
        job.sampling,
        due_s - asyncio.get_running_loop().time(),
        job.tools,
        job.tool_choice,
        job.parallel_calls,
        prefix,
        prompt.files,
    )
