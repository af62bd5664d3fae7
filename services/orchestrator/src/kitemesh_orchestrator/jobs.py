"""From a turn's state to the commands that its workers take, put on the bus under ids that make twice the same as once.

It reads the history and long results from the store where the state does not carry them.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec

from kitemesh_contracts import codec, subjects
from kitemesh_contracts.commands import CallOrder, CancelTurn, Generate, Mark, Mode, Priority, RunCalls
from kitemesh_contracts.content import Message, Step
from kitemesh_contracts.errors import Unavailable
from kitemesh_contracts.events import StepTimings
from kitemesh_contracts.headers import job_msg_id
from kitemesh_contracts.topology import lane_of
from kitemesh_orchestrator import carried, judging, request, stored
from kitemesh_orchestrator.states import Calling, Generating, Running
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.call_stops import stop_calls
from kitemesh_runtime.catalog import Agent, History
from kitemesh_runtime.catalog_file import CatalogHandle
from kitemesh_runtime.live_turns import Job, LiveTurn
from kitemesh_runtime.parcels import Parcels, pack_small
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.turns import TurnRecord

LEAST_BUDGET_S: Final = 0.001
RESULTS_MAX_CHARS: Final = 2_000_000
"""Of the long results of one turn that a model is shown again, the newest first."""
_MS: Final = 1000.0
_NO_TIME: Final = StepTimings()
NOT_SHOWN: Final = "(This long result is not shown again.)"


class Jobs:
    """Publishes jobs."""

    def __init__(self, bus: Bus, stores: Stores, parcels: Parcels, catalog: CatalogHandle) -> None:
        self._bus: Final = bus
        self._stores: Final = stores
        self._parcels: Final = parcels
        self._catalog: Final = catalog

    def agent_of(self, state: Running) -> Agent | None:
        """Return whose rules a turn follows."""
        name = state.start.route.agent
        return self._catalog.current.agents.get(name) if name else None

    async def prompt(self, state: Running, history: Sequence[TurnRecord]) -> tuple[Message, ...]:
        """Return what the first step is shown, given the history."""
        agent = self.agent_of(state)
        window = agent.history if agent else History()
        shown, texts = await self._readable(history, state.start.tenant, request.characters_within(window))
        return request.render(state.start, agent, shown, texts)

    async def publish_first(self, state: Generating, prompt: tuple[Message, ...], timings: StepTimings) -> None:
        """Publish the first step's job with its prompt, which the state takes along if other steps may follow."""
        tools = judging.offer(state.start, self.agent_of(state), self._catalog.current)
        await self._generate(msgspec.structs.replace(state, shown=prompt) if tools else state, prompt, timings)

    async def publish(self, state: Running, job: Job) -> None:
        """Publish a job of a state; under the same attempt again it changes nothing."""
        if isinstance(state, Calling):
            await self._run(state, job)
        else:
            await self._generate(state)

    async def publish_again(self, state: Running, job: Job, command: Generate | RunCalls) -> None:
        """Publish a job that was handed back, under a new attempt."""
        carry = msgspec.Raw(b"null") if state.durable else carried.save(state)
        command = msgspec.structs.replace(command, attempt=job.attempt, carry=carry)
        pool = state.start.route.pool if isinstance(command, Generate) else job.pool
        if isinstance(command, Generate):
            # It may have begun, and whoever follows it has seen that.
            command = msgspec.structs.replace(command, max_wait_s=None)
        await self._send(command, pool, job.index, state.start.priority)

    async def stop(self, state: Running, *, by: str = "") -> None:
        """Have a stored turn that is ending begin no call any more, and whoever works for it stop.

        Args:
            state: Of the turn.
            by: Stands in the ledger for what stopped the calls; empty for what nobody else has.

        Raises:
            Unavailable: The store does not answer.

        """
        await self.stop_document(stored.to_live(state, 1), by=by)

    async def stop_document(self, live: LiveTurn, *, by: str = "") -> None:
        """Do what `stop` does, for a turn's document."""
        await stop_calls(self._stores.ledger, live, self._catalog.current.tools, by=by)
        cancel = CancelTurn(turn=live.id, tenant=live.tenant, reason="the turn has ended", ended=True)
        with suppress(Unavailable):
            # The ledger stops what has an effect; this only saves work.
            self._bus.publish(subjects.cancel(live.id), codec.encode(cancel))

    async def _generate(
        self, state: Generating, prompt: tuple[Message, ...] = (), timings: StepTimings = _NO_TIME
    ) -> None:
        start, agent = state.start, self.agent_of(state)
        base = prompt or state.shown or await self.prompt(state, await self._history(state, agent))
        texts = await self._texts(state.steps, start.tenant)
        tools = judging.offer(start, agent, self._catalog.current)
        before = state.steps[-1] if state.steps else None
        waited_s = timings.start_queued_ms / _MS
        command = Generate(
            turn=start.turn,
            tenant=start.tenant,
            gateway=start.gateway,
            mode=_mode(state),
            step=state.step,
            attempt=state.attempt,
            models=start.route.models,
            messages=(*base, *request.follow_up(state.steps, texts)),
            budget_s=_left_s(state, waited_s),
            sampling=start.sampling,
            stream=start.stream,
            tools=tools,
            tool_choice=_choice(state, judging.limits_of(agent).steps),
            parallel_calls=start.parallel_calls if tools else None,
            stored=state.durable,
            after=Mark(step=before.step, attempt=before.attempt, n=before.last) if before else None,
            timings=timings,
            results=request.results_of(before, texts) if before is not None and start.stream else (),
            max_wait_s=_wait_left_s(state, waited_s) if timings is not _NO_TIME else None,
            carry=msgspec.Raw(b"null") if state.durable else carried.save(state),
        )
        await self._send(command, start.route.pool, 0, start.priority)

    async def _run(self, state: Calling, job: Job) -> None:
        start = state.start
        command = RunCalls(
            turn=start.turn,
            tenant=start.tenant,
            gateway=start.gateway,
            mode=_mode(state),
            step=state.said.step,
            attempt=job.attempt,
            calls=tuple(
                CallOrder(
                    id=each.id, name=each.name, arguments=each.arguments, sha256=each.sha256, version=each.version
                )
                for each in state.asked
                if each.id in job.calls
            ),
            budget_s=_left_s(state),
            job=job.index,
            stored=state.durable,
            carry=msgspec.Raw(b"null") if state.durable else carried.save(state),
        )
        await self._send(command, job.pool, job.index, start.priority)

    async def _send(self, command: Generate | RunCalls, pool: str, index: int, priority: Priority) -> None:
        is_model = isinstance(command, Generate)
        pools = self._catalog.current.pools.model if is_model else self._catalog.current.pools.tool
        part = pools.get(pool)
        lane = lane_of(command.tenant, part.lanes) if part else 0
        subject_of = subjects.model_job if is_model else subjects.tool_job
        payload = pack_small(command) or await self._parcels.pack(command.tenant, command)
        await self._bus.send(
            subject_of(pool, priority, lane, command.turn),
            payload,
            msg_id=job_msg_id(command.turn, command.step, "model" if is_model else "tool", index, command.attempt),
        )

    async def _history(self, state: Running, agent: Agent | None) -> list[TurnRecord]:
        start = state.start
        if start.conversation is None or start.fresh:
            return []
        window = agent.history if agent else History()
        found = await self._stores.turns.recent(start.tenant, start.conversation, limit=request.turns_within(window))
        return [record for record in found if record.ordinal < state.ordinal]

    async def _readable(
        self, history: Sequence[TurnRecord], tenant: str, characters: int
    ) -> tuple[Sequence[TurnRecord], dict[str, str]]:
        """Fetch the long results of the newest turns that can fit a window; older turns are left out."""
        texts: dict[str, str] = {}
        left = characters
        for place in range(len(history) - 1, -1, -1):
            for blob in request.blobs_of(history[place].steps):
                if left <= 0:
                    return history[place + 1 :], texts
                left -= await self._fetch(tenant, blob, texts)
        return history, texts

    async def _texts(self, steps: Sequence[Step], tenant: str) -> dict[str, str]:
        """Fetch the long results of a turn's own steps, the newest first, as far as a model can be shown."""
        texts: dict[str, str] = {}
        left = RESULTS_MAX_CHARS
        for blob in reversed(request.blobs_of(steps)):
            if left <= 0:
                texts[blob] = NOT_SHOWN
            else:
                left -= await self._fetch(tenant, blob, texts)
        return texts

    async def _fetch(self, tenant: str, blob: str, texts: dict[str, str]) -> int:
        data = await self._stores.blobs.get(tenant, blob)
        if data is not None:
            texts[blob] = data.decode()
        return len(data or b"")


def _mode(state: Running) -> Mode:
    """Say what a lost client means for the turn's jobs: nothing once it was held."""
    return "durable" if state.held else state.start.mode


def _left_s(state: Running, waited_s: float = 0.0) -> float:
    return max(LEAST_BUDGET_S, state.start.budget_s - state.spent_s - waited_s)


def _wait_left_s(state: Generating, waited_s: float) -> float | None:
    """Return how much longer a turn may wait for its first model call, after its start has waited."""
    bound_s = state.start.max_wait_s
    return None if bound_s is None else max(0.0, bound_s - waited_s)


def _choice(state: Generating, last_step: int) -> str:
    """A choice is for the first step: kept up, `required` would never end. In the last step nothing may be called."""
    if state.step >= last_step:
        return "none"
    return state.start.tool_choice if state.step == 1 else "auto"
