"""The use case "run a turn": accept it, hand it to the cluster, wait for its answer. It knows no HTTP.

A turn is watched before its start is published, so that its first event cannot be missed.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import structlog
from msgspec.structs import replace

from kitemesh_contracts import subjects
from kitemesh_contracts.commands import Mode, Route, StartTurn
from kitemesh_contracts.errors import Busy, ErrorCode, NotFound, Unavailable
from kitemesh_contracts.headers import late_start_msg_id, start_msg_id
from kitemesh_gateway import capabilities
from kitemesh_gateway.auth import Principal
from kitemesh_gateway.dialects.base import Mistake, Mistakes, TurnRequest, WantedMode
from kitemesh_gateway.message_ids import MessageIds
from kitemesh_gateway.relay import Relay
from kitemesh_gateway.request_size import MAX_REQUEST_BYTES, check_size
from kitemesh_gateway.visibility import conversation_unknown, may_see
from kitemesh_gateway.watches import Sink, Watch, Watched
from kitemesh_gateway.wishes import allowed
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.catalog_file import CatalogHandle
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.conversations import Conversations
from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.failpoints import guard, reach
from kitemesh_runtime.parcels import Parcels, pack_small
from kitemesh_runtime.weights import order

PUBLISH_S: Final = 2.6
"""For the start's publication, its parcel included: a refusal must be out within 3 s."""
PACK_S: Final = 2.0
LATE_S: Final = 60.0
RENEW_EVERY_S: Final = 10.0
RETRY_S: Final = 1.0
CLIENT_GONE: Final = "the client is gone"
SHOWN_MODEL_CHARS: Final = 100

log: Final = structlog.get_logger()


def model_unknown(model: str) -> NotFound:
    """Return the one refusal of a model that does not exist and of one that is not the caller's.

    Args:
        model: As the client wrote it; told back on one line, escaped and shortened.

    """
    shown = model if len(model) <= SHOWN_MODEL_CHARS else model[:SHOWN_MODEL_CHARS] + "…"
    message = f"The model {shown!r} does not exist, or is not available to this key; GET /v1/models lists what is"
    return NotFound(ErrorCode.MODEL_UNKNOWN, message)


def agent_unknown() -> NotFound:
    """Return the one refusal of an agent that does not exist and of one that is not the caller's."""
    return NotFound(ErrorCode.MODEL_UNKNOWN, "There is no such agent, or it is not available to this key")


class Turns:
    """Runs turns in the cluster.

    Args:
        replica: This gateway, as it is addressed.
        budget_s: What each turn may take.
        max_open: Answers that may be awaited at once: an open turn counts as often as it is followed.
        max_request_bytes: What a request may bring beside its files.

    """

    def __init__(
        self,
        *,
        replica: str,
        bus: Bus,
        parcels: Parcels,
        relay: Relay,
        conversations: Conversations,
        message_ids: MessageIds,
        catalog: CatalogHandle,
        clock: Clock,
        store_state: Dependency,
        budget_s: float,
        max_open: int,
        max_request_bytes: int = MAX_REQUEST_BYTES,
    ) -> None:
        self._replica: Final = replica
        self._bus: Final = bus
        self._parcels: Final = parcels
        self._relay: Final = relay
        self._conversations: Final = conversations
        self._message_ids: Final = message_ids
        self._catalog: Final = catalog
        self._clock: Final = clock
        self._store_state: Final = store_state
        self._budget_s: Final = budget_s
        self._max_open: Final = max_open
        self._max_request_bytes: Final = max_request_bytes

    def route(self, principal: Principal, request: TurnRequest) -> Route:
        """Say where a request is answered.

        Raises:
            NotFound: The model or the agent does not exist, or not for this principal.
            BadRequest: No model is named and none is the default, or what is asked for is not what the model can do, or
                does not fit the agent, or is too large.

        """
        check_size(request, self._max_request_bytes)
        catalog = self._catalog.current
        named = request.agent or (principal.default_agent if request.default_agent else None)
        if request.agent is not None and not principal.allows(f"agent:{request.agent}"):
            raise agent_unknown()
        model = request.model
        if model is None:
            model = f"agent:{named}" if named is not None else catalog.default_model
            if model is not None and named is None and not principal.allows(model):
                # The server's default is none for this key.
                model = None
        elif not principal.allows(model):
            raise model_unknown(model)
        if model is None:
            raise Mistakes([Mistake("model", "is required: neither this key nor this server has a default")])
        try:
            route = catalog.resolve(model)
        except NotFound:
            raise agent_unknown() if request.model is None and named is not None else model_unknown(model) from None
        if named is not None and route.agent is None:
            if named not in catalog.agents:
                raise agent_unknown()
            route = replace(route, agent=named)
        agent = None if route.agent is None else catalog.agents[route.agent]
        mistakes = capabilities.problems(request, [catalog.models[each] for each in route.models])
        mistakes += _misfits(request, () if agent is None else agent.tools)
        if mistakes:
            raise Mistakes(mistakes)
        return capabilities.narrow(route, request, catalog.models)

    async def check_conversation(self, principal: Principal, conversation: str | None) -> None:
        """Refuse to go on with a conversation whose history is not for this principal.

        Raises:
            NotFound: It is not (`conversation.unknown`); one that does not exist is left to who seats the turn.
            Unavailable: The store does not answer.

        """
        if conversation is None or principal.models is None:
            return
        found = await self._conversations.get(principal.tenant, conversation)
        if found is not None and not may_see(principal, found):
            raise conversation_unknown()

    def mode(self, request: TurnRequest, route: Route, *, keyed: bool) -> Mode:
        """Say how a request runs; one with an idempotency key is always durable.

        Raises:
            Mistakes: It asks for what only a classic turn does.

        """
        mode: Mode = "durable" if keyed or request.durable else self._wanted(request.mode, route)
        if mode == "durable":
            mistakes = _only_classic(request)
            if mistakes:
                raise Mistakes(mistakes)
        return mode

    def _wanted(self, wanted: WantedMode, route: Route) -> Mode:
        if wanted == "durable":
            return "durable"
        agent = None if wanted == "classic" or route.agent is None else self._catalog.current.agents.get(route.agent)
        return "classic" if agent is None else agent.mode

    def accept(
        self,
        principal: Principal,
        request: TurnRequest,
        route: Route,
        *,
        mode: Mode = "classic",
        request_id: str = "",
        dialect: str = "",
    ) -> StartTurn:
        """Make a turn of a request, unless it would only fail.

        A durable one keeps all that its answer says of it, so that any gateway can say it again.

        Args:
            principal: Who asks.
            request: What for.
            route: Where it is answered.
            mode: How it runs.
            request_id: The HTTP request's.
            dialect: What the client speaks.

        Raises:
            Unavailable: The store is known to be down.
            Busy: Too many turns are open here.

        """
        self.admit()
        fresh = request.keep and request.conversation is None
        turn = self._clock.new_id()
        return StartTurn(
            turn=turn,
            tenant=principal.tenant,
            gateway=self._replica,
            mode=mode,
            route=self._ordered(route, turn),
            input=request.messages,
            accepted_at_ms=self._clock.now_ms(),
            budget_s=self._budget_s,
            key=principal.key,
            request=request_id if request.label is None else request.label,
            conversation=self._clock.new_id() if fresh else request.conversation,
            fresh=fresh,
            sampling=request.sampling,
            stream=request.stream,
            tools=request.tools,
            tool_choice=request.tool_choice,
            parallel_calls=request.parallel_calls,
            dialect=dialect if mode == "durable" else "",
            include_usage=mode == "durable" and request.include_usage,
            creates=request.creates and request.conversation is not None,
            prompt=request.prompt,
            denies_holds=request.denies_holds,
            message=request.message,
            row=request.row,
            details=request.details,
            priority=allowed(request.priority, principal.priority),
            max_wait_s=request.max_wait_s,
        )

    def _ordered(self, route: Route, turn: str) -> Route:
        """Have a turn's models tried in the order that their group's weights give it."""
        weights = self._catalog.current.weights(route.requested) if len(route.models) > 1 else {}
        return replace(route, models=order(route.models, weights, turn)) if weights else route

    def admit(self) -> None:
        """Refuse what would only fail.

        Raises:
            Unavailable: The store is known to be down.
            Busy: Too many turns are open here.

        """
        if not self._store_state.is_up:
            message = "The store does not answer; no new turns are taken"
            raise Unavailable(ErrorCode.STORE_DOWN, message, retry_after_s=RETRY_S)
        self.admit_reader()

    def admit_reader(self) -> None:
        """Refuse to have one more answer awaited than there may be.

        Raises:
            Busy: Too many turns are open here, or followed.

        """
        if self._relay.readers >= self._max_open:
            raise Busy(ErrorCode.QUEUE_FULL, "Too many turns are open", retry_after_s=RETRY_S)

    @asynccontextmanager
    async def running(self, start: StartTurn, sink: Sink) -> AsyncIterator[None]:
        """Run a classic turn while inside; one that still runs at the end is stopped.

        Raises:
            Busy: The queue is full; nothing was run.
            Unavailable: The bus or the store did not answer in time; the turn is withdrawn in case it began.

        """
        watch = await self.begin(start, sink)
        try:
            yield
        finally:
            self._relay.withdraw(watch, CLIENT_GONE)

    async def begin(self, start: StartTurn, sink: Sink) -> Watch:
        """Watch a classic turn and hand it to the cluster.

        Raises:
            Busy: The queue is full; nothing was run.
            Unavailable: The bus or the store did not answer in time; the turn is withdrawn in case it began.

        """
        watch = self._relay.open(self.watched(start), sink)
        try:
            await guard("gw.after_publish", self.publish(start))
            await reach("gw.after_publish")
        except Busy:
            self._relay.close(watch)
            raise
        except BaseException as exc:
            self._relay.withdraw(watch, CLIENT_GONE if isinstance(exc, asyncio.CancelledError) else "it did not begin")
            raise
        return watch

    async def renew_locks(self) -> None:
        """Keep the conversations of open turns locked, and the ids of their messages claimed, for ever."""
        while True:
            await asyncio.sleep(1.0)
            await self.renew_due()

    async def renew_due(self) -> None:
        """Renew what was not renewed for 10 s; what fails is due again at once."""
        now_s = self._clock.monotonic()
        due = [
            watch
            for watch in self._relay.watches()
            if (watch.turn.conversation is not None or watch.turn.message)
            and not watch.turn.durable
            and now_s - watch.renewed_s >= RENEW_EVERY_S
        ]
        results = await asyncio.gather(*(self._renew(watch.turn) for watch in due), return_exceptions=True)
        failed = []
        for watch, result in zip(due, results, strict=True):
            if isinstance(result, BaseException):
                failed.append(result)
            else:
                watch.renewed_s = now_s
        if failed:
            log.warning("lock.not_renewed", turns=len(failed), reason=str(failed[0]))

    async def _renew(self, turn: Watched) -> None:
        if turn.conversation is not None:
            await self._conversations.renew(turn.tenant, turn.conversation, turn.turn)
        await self._message_ids.renew(turn.tenant, turn.message, turn.turn)

    def watched(self, start: StartTurn) -> Watched:
        """Say what watching a turn of this gateway's comes to."""
        agent = self._catalog.current.agents.get(start.route.agent or "")
        return Watched(
            turn=start.turn,
            tenant=start.tenant,
            budget_s=start.budget_s,
            stream=start.stream,
            conversation=start.conversation,
            fresh=start.fresh,
            acts=agent is not None and bool(agent.tools),
            durable=start.mode == "durable",
            model=start.route.requested,
            message=start.message,
        )

    def own_tools(self, start: StartTurn) -> frozenset[str]:
        """Return the names of the caller's tools, if it has all that the turn has."""
        agent = self._catalog.current.agents.get(start.route.agent or "")
        return frozenset() if agent is not None and agent.tools else frozenset(tool.name for tool in start.tools)

    async def publish(self, start: StartTurn) -> None:
        """Publish a turn's start.

        Raises:
            Busy: The queue is full.
            Unavailable: It may be published or not.

        """
        payload = pack_small(start)
        left_s = PUBLISH_S
        if payload is None:
            began_s = self._clock.monotonic()
            payload = await self._pack(start)
            left_s -= self._clock.monotonic() - began_s
        subject = subjects.turn_start(start.turn)
        await self._bus.send(subject, payload, msg_id=start_msg_id(start.turn), timeout_s=left_s)

    async def publish_late(self, start: StartTurn) -> None:
        """Publish a stored turn's start as one that comes again: whoever takes it looks how far the turn has come.

        Raises:
            Unavailable: Not within a minute.

        """
        payload = pack_small(start) or await self._parcels.pack(start.tenant, start)
        subject, msg_id = subjects.control_start(start.turn), late_start_msg_id(start.turn)
        await self._bus.send(subject, payload, msg_id=msg_id, timeout_s=LATE_S)

    async def _pack(self, start: StartTurn) -> bytes:
        try:
            async with asyncio.timeout(PACK_S):
                return await self._parcels.pack(start.tenant, start)
        except TimeoutError as exc:
            raise Unavailable(ErrorCode.STORE_DOWN, "The store does not answer", retry_after_s=RETRY_S) from exc


def _only_classic(request: TurnRequest) -> list[Mistake]:
    """Return what cannot be told again, and so is not for a durable turn."""
    mistakes = []
    if request.sampling.choices > 1:
        mistakes.append(Mistake("n", "must be 1 in a durable turn"))
    if request.sampling.logprobs:
        mistakes.append(Mistake("logprobs", "must be false in a durable turn"))
    return mistakes


def _misfits(request: TurnRequest, own: Sequence[str]) -> list[Mistake]:
    """Return what does not go together with the agent's own tools."""
    mistakes = [
        Mistake("tools", f"{tool.name} is the name of one of the agent's own tools")
        for tool in request.tools
        if tool.name in own
    ]
    if request.tool_choice == "required" and not (request.tools or own):
        mistakes.append(Mistake("tool_choice", "needs a tool"))
    if request.sampling.choices > 1 and own:
        mistakes.append(Mistake("n", "must be 1 where tools run on this server"))
    if request.sampling.logprobs and own:
        mistakes.append(Mistake("logprobs", "must be false where tools run on this server"))
    return mistakes
