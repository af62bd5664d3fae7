"""What goes wrong with work: too much of it, nobody there for it, and processes that die, stop or stumble over it."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from typing import Final

from cluster import GROUP
from kitemesh_contracts.topology import MODEL, PRIORITIES, lane_consumer
from observed.catalog import FAR, FAR_MODEL
from observed.fault import Fault, beside, frozen, keep, many, process_ids, stutter, until
from observed.load import CHAT, Client, chat
from observed.stage import SLOTS, Stage
from tool_cluster import calling

DURABLE: Final = {"metadata": {"mode": "durable"}}
BUSY_S: Final = 2.0
"""A runner has taken on work by then."""
EXECUTORS: Final = ("tool-executor", "tool-executor-b")


@contextlib.asynccontextmanager
async def a_pool_has_no_worker(stage: Stage, client: Client) -> AsyncIterator[None]:
    """Freeze the only runner of a pool while durable turns come for it."""
    body = chat("Hello", FAR_MODEL, **DURABLE)
    with frozen(*process_ids(stage, f"model-runner-{FAR}")):
        async with beside(many(lambda: client.call("/v1/executions", body), 3 * SLOTS)):
            yield


@contextlib.asynccontextmanager
async def jobs_are_lost(stage: Stage, client: Client) -> AsyncIterator[None]:
    """Freeze the same runner, and delete the jobs that it has not done."""
    body = chat("Hello", FAR_MODEL, **DURABLE)
    with frozen(*process_ids(stage, f"model-runner-{FAR}")):
        await many(lambda: client.call("/v1/executions", body), SLOTS)
        async with stage.bus() as bus:

            async def wait() -> bool:
                found = await stage.ask(bus, f"CONSUMER.INFO.{MODEL}.{lane_consumer(FAR, PRIORITIES[0], 0)}")
                return int(found["num_pending"] + found["num_ack_pending"]) >= SLOTS

            assert await until(wait), "the jobs do not come"
            await stage.ask(bus, f"STREAM.PURGE.{MODEL}", b'{"filter": "km.v1.model.%s.>"}' % FAR.encode())
        yield


@contextlib.asynccontextmanager
async def too_much_work(_stage: Stage, client: Client) -> AsyncIterator[None]:
    """Ask twice as often as there are slots for, of a model that takes seconds."""
    body = chat("@first_ms 4000\n@echo busy", GROUP)
    async with beside(keep(lambda: client.call(CHAT, body), every_s=0.06)):
        yield


@contextlib.asynccontextmanager
async def a_runner_dies_again_and_again(stage: Stage, client: Client) -> AsyncIterator[None]:
    """Kill a model-runner whenever it has taken on work; another takes that over."""
    body = chat("@first_ms 1000\n@echo taken over", GROUP)

    async def ask() -> None:
        while True:
            await many(lambda: client.call(CHAT, body), SLOTS)

    async def die() -> None:
        while True:
            await asyncio.sleep(BUSY_S)
            with contextlib.suppress(KeyError):
                await asyncio.to_thread(stage.cluster.kill, "model-runner")

    async with beside(ask(), die()):
        yield


@contextlib.asynccontextmanager
async def a_message_cannot_be_read(stage: Stage, _client: Client) -> AsyncIterator[None]:
    """Publish a job that is none."""
    async with stage.bus() as bus:
        await bus.send("km.v1.model.default.interactive.0.nonsense", b"{nonsense", msg_id="nonsense")
    yield
    async with stage.bus() as bus:
        await stage.ask(bus, "STREAM.PURGE.KM_DEAD", b'{"filter": "km.v1.dead.>"}')


@contextlib.asynccontextmanager
async def executors_die_in_mid_call(stage: Stage, client: Client) -> AsyncIterator[None]:
    """Kill the executors when a call with an effect is under way."""
    call = ("note", {"id": client.name(), "mode": "slow", "delay_ms": "5000"})
    before = len(stage.tools.effects())
    async with beside(many(lambda: client.call(CHAT, chat(calling(call), "agent:clerk")), 1)):

        async def begun() -> bool:
            return any("mode=slow" in each["path"] for each in stage.tools.effects()[before:])

        assert await until(begun), "the call does not come"
        for each in process_ids(stage, *EXECUTORS):
            os.kill(each, signal.SIGKILL)
        yield


@contextlib.asynccontextmanager
async def a_loop_is_held_up(stage: Stage, _client: Client) -> AsyncIterator[None]:
    """Have an orchestrator stand still for half a second again and again."""
    async with beside(stutter(*process_ids(stage, "orchestrator-b"), still_s=0.5, moving_s=0.4)):
        yield


@contextlib.asynccontextmanager
async def no_executor_answers(stage: Stage, _client: Client) -> AsyncIterator[None]:
    """Freeze every tool-executor."""
    names = [each.instance for each in stage.targets if each.service == "tool-executor"]
    with frozen(*process_ids(stage, *names)):
        yield


FAULTS: Final = (
    Fault(
        "a pool has no worker",
        ("KitemeshQueueUnattended", "KitemeshQueueOld", "KitemeshServiceDown"),
        a_pool_has_no_worker,
    ),
    Fault("jobs are lost", ("KitemeshRedriven",), jobs_are_lost),
    Fault("too much work", ("KitemeshQueueWait", "KitemeshSlotsFull"), too_much_work),
    Fault("a runner dies again and again", ("KitemeshRedeliveries",), a_runner_dies_again_and_again),
    Fault("a message cannot be read", ("KitemeshDeadLetters",), a_message_cannot_be_read),
    Fault("executors die in mid-call", ("KitemeshOutcomeUnknown",), executors_die_in_mid_call),
    Fault("a loop is held up", ("KitemeshLoopLag",), a_loop_is_held_up),
    Fault("no executor answers", ("KitemeshServiceAbsent",), no_executor_answers),
)
