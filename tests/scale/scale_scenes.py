"""The parts of the scaling proof, one after another: each service scaled by itself, then replicas that leave.

Clients are many and patient, so that the slots are what is short and not the processor: the waits then follow from
Little's law, and a machine that does other things as well changes them little.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final, NamedTuple

from scale.scale_clients import Clients, Wish
from scale.scale_record import Kind, Scene, Step
from scale.scale_stage import Stage
from scale.scale_upstream import CLERK, QUICK, STEADY, TEXT

RUNNERS: Final = "runners"
EXECUTORS: Final = "executors"
GATEWAYS: Final = "gateways"
LEAVING: Final = "leaving"

TURN: Final = Wish("turn", QUICK, TEXT)
KEPT_TURN: Final = Wish("turn", QUICK, TEXT, durable=True)
TOOL_TURN: Final = Wish("tool", f"agent:{CLERK}", TEXT)
STREAM: Final = Wish("stream", STEADY, TEXT)
KEPT_STREAM: Final = Wish("stream", STEADY, TEXT, durable=True)

LEAVERS: Final = (
    ("model-runner", signal.SIGTERM),
    ("gateway", signal.SIGTERM),
    ("tool-executor", signal.SIGTERM),
    ("model-runner", signal.SIGKILL),
    ("orchestrator", signal.SIGTERM),
    ("gateway", signal.SIGTERM),
    ("model-runner", signal.SIGTERM),
)
NOTICED_S: Final = 1.0
"""So long after its SIGTERM a gateway still gets clients, as it does until a load balancer has heard of it."""


class Pace(NamedTuple):
    """How long things take, in seconds.

    Attributes:
        settle_s: Of a step, before its turns are measured.
        step_s: Of a step, while they are.
        between_s: From one replica's leaving to the next one's.

    """

    settle_s: float = 3.0
    step_s: float = 14.0
    between_s: float = 2.5


Say = Callable[[str], None]


async def scale_runners(
    stage: Stage, pace: Pace, say: Say, *, clients: int = 36, counts: tuple[int, ...], leaving: bool = False
) -> None:
    """Have more and more model-runners for the same clients; `leaving` has the newest one leave again."""
    async with _scene(stage, RUNNERS, {TURN: clients}):
        for count in counts:
            await stage.grow("model-runner", count)
            await _step(stage, pace, RUNNERS, "model-runner", clients)
            say(_told(stage, "turn"))
        if leaving:
            say(f"{stage.shrink('model-runner')} leaves")
            await asyncio.sleep(pace.settle_s)


async def scale_executors(stage: Stage, pace: Pace, say: Say, *, clients: int = 18, counts: tuple[int, ...]) -> None:
    """Have more tool-executors for the same clients."""
    async with _scene(stage, EXECUTORS, {TOOL_TURN: clients}):
        for count in counts:
            await stage.grow("tool-executor", count)
            await _step(stage, pace, EXECUTORS, "tool-executor", clients)
            say(_told(stage, "tool"))


async def scale_gateways(stage: Stage, pace: Pace, say: Say, *, clients: int = 200, counts: tuple[int, ...]) -> None:
    """Have more and more gateways for more streams than the first one takes."""
    async with _scene(stage, GATEWAYS, {STREAM: clients}):
        for count in counts:
            await stage.grow("gateway", count)
            await _step(stage, pace, GATEWAYS, "gateway", clients)
            say(_told(stage, "stream"))


async def leave(stage: Stage, pace: Pace, say: Say) -> None:
    """Have replicas leave, one of them without a word, beside every kind of turn."""
    await stage.grow("orchestrator", 2)
    # In the end one gateway has them all: no more than it takes, so that nobody is refused for want of room.
    wishes = {TURN: 10, KEPT_TURN: 6, TOOL_TURN: 8, STREAM: 25, KEPT_STREAM: 25}
    async with _scene(stage, LEAVING, wishes):
        await asyncio.sleep(pace.settle_s)
        for service, how in LEAVERS:
            name = stage.shrink(service, how)
            say(f"{name} leaves by {how.name}")
            if service == "gateway":
                await asyncio.sleep(NOTICED_S)
                stage.forget(name)
            await asyncio.sleep(pace.between_s)
        await asyncio.sleep(pace.settle_s)
    stage.run.left = await stage.left()
    for name, status in stage.run.left.items():
        say(f"{name} ended with status {status}")


@contextlib.asynccontextmanager
async def _scene(stage: Stage, name: str, wishes: Mapping[Wish, int]) -> AsyncIterator[None]:
    clients = Clients(stage.origins, stage.cluster.key, stage.run.turns, stage.began)
    began_s = stage.now_s()
    async with clients.asking(wishes):
        yield
    stage.run.scenes.append(Scene(name=name, began_s=began_s, ended_s=stage.now_s()))


async def _step(stage: Stage, pace: Pace, scene: str, service: str, clients: int) -> None:
    count = stage.count(service)
    await asyncio.sleep(pace.settle_s)
    measured_s = stage.now_s()
    await asyncio.sleep(pace.step_s)
    stage.run.steps.append(
        Step(
            scene=scene,
            service=service,
            replicas=count,
            slots=count * stage.run.slots,
            clients=clients,
            measured_s=measured_s,
            ended_s=stage.now_s(),
        )
    )


def _told(stage: Stage, kind: Kind) -> str:
    step = stage.run.steps[-1]
    ended = [turn for turn in stage.run.turns if turn.kind == kind and turn.ended_s >= step.measured_s]
    failed = sum(bool(turn.problem) for turn in ended)
    return f"{step.service} x {step.replicas}: {len(ended)} turns, {failed} failed"
