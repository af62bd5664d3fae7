"""`POST /v1/chat/resume`: answer a hold and get the rest of its turn.

The turn is durable: it goes on whether its client stays or not, and whichever gateway held it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from aiohttp import web

from kitemesh_contracts.headers import LAST_EVENT_ID
from kitemesh_contracts.scopes import Scope
from kitemesh_gateway.auth import Principal
from kitemesh_gateway.deciding import Answer, Audience, Deciding, approval_unknown
from kitemesh_gateway.dialects.base import Facts, Mistake, Mistakes
from kitemesh_gateway.dialects.completions_resume import Resumption, parse_resumption
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.reading import Reading
from kitemesh_gateway.relay import Relay
from kitemesh_gateway.replies import Replies
from kitemesh_gateway.turns import Turns
from kitemesh_gateway.watches import Sink, Watched
from kitemesh_runtime.holds import Hold, Holds
from kitemesh_runtime.live_turns import LiveTurns


class Resume:
    """Answers resume requests.

    Args:
        replica: This gateway, as it is addressed.
        budget_s: How long the rest of a turn is waited for.
        reattach: Answers a request that carries `Last-Event-ID`.

    """

    def __init__(
        self,
        reading: Reading,
        holds: Holds,
        live_turns: LiveTurns,
        deciding: Deciding,
        *,
        turns: Turns,
        relay: Relay,
        replies: Replies,
        replica: str,
        budget_s: float,
        reattach: Callable[[Exchange], Awaitable[web.StreamResponse]],
    ) -> None:
        self._reading: Final = reading
        self._holds: Final = holds
        self._live_turns: Final = live_turns
        self._deciding: Final = deciding
        self._turns: Final = turns
        self._relay: Final = relay
        self._replies: Final = replies
        self._replica: Final = replica
        self._budget_s: Final = budget_s
        self._reattach: Final = reattach

    async def handle(self, exchange: Exchange) -> web.StreamResponse:
        """Decide a hold and answer with what its turn says after it."""
        if LAST_EVENT_ID in exchange.request.headers:
            return await self._reattach(exchange)
        # The same decision is made once and answered in the same way whatever its idempotency key.
        read = await self._reading.read(exchange, scope=None)
        principal = read.principal
        asked = parse_resumption(read.decoded)
        hold = await self._holds.get(principal.tenant, asked.approval)
        if hold is None or not principal.allows(hold.model):
            raise approval_unknown()
        principal.require(Scope(hold.scope))
        _check(asked, hold)
        self._turns.admit()
        encoder = exchange.dialect.encoder(await self._facts(exchange, asked, hold))
        run = partial(self._resumed, exchange, principal, asked, hold)
        if asked.stream:
            return await self._replies.stream(exchange, encoder, run, opens_at_once=True)
        return await self._replies.whole(exchange, encoder, run)

    async def _facts(self, exchange: Exchange, asked: Resumption, hold: Hold) -> Facts:
        """Return what the answer says of its turn: what any gateway will say when the stream is attached to again."""
        turn = await self._live_turns.get(hold.tenant, hold.turn)
        # A hold is stored before its turn is saved, and may be answered in between.
        created_s = int(hold.created_at_s) if turn is None else turn.accepted_at_ms // 1000
        return Facts(
            turn=hold.turn,
            model=hold.model,
            created_s=created_s,
            label=(turn.request if turn is not None else None) or exchange.request_id,
            conversation=hold.conversation,
            include_usage=asked.include_usage,
            resumable=True,
            after_step=hold.step,
        )

    @asynccontextmanager
    async def _resumed(
        self, exchange: Exchange, principal: Principal, asked: Resumption, hold: Hold, sink: Sink
    ) -> AsyncIterator[None]:
        """Decide the hold, and have the rest of its turn told to the sink while inside."""
        async with AsyncExitStack() as stack:

            async def attach(valid: Hold) -> None:
                # What follows a hold that was decided before is told from its beginning.
                exchange.turn, exchange.conversation = valid.turn, valid.conversation or ""
                await stack.enter_async_context(self._relay.attached(self._watched(asked, valid), sink))

            await self._deciding.decide(
                principal,
                hold.id,
                {call.id: Answer(call.id in asked.approved, asked.denied.get(call.id, "")) for call in hold.calls},
                origin=exchange.request.remote or "",
                texts=asked.texts,
                audience=Audience(self._replica, asked.stream),
                attach=attach,
            )
            yield

    def _watched(self, asked: Resumption, hold: Hold) -> Watched:
        return Watched(
            turn=hold.turn,
            tenant=hold.tenant,
            budget_s=self._budget_s,
            stream=asked.stream,
            conversation=hold.conversation,
            acts=True,
            durable=True,
            model=hold.model,
            after_step=hold.step,
            decided=frozenset(call.id for call in hold.calls),
        )


def _check(asked: Resumption, hold: Hold) -> None:
    """Hold an answer against the calls that were held.

    Raises:
        Mistakes: With everything that does not fit.

    """
    calls = {call.id for call in hold.calls}
    mistakes = []
    if not _is_same_model(asked.model, hold.model):
        mistakes.append(Mistake("model", "is not the one that the approval belongs to"))
    for field, ids in (("approved_tool_execution_ids", asked.approved), ("denied_tools", asked.denied)):
        unknown = sorted(id_ for id_ in ids if id_ not in calls)
        mistakes += [Mistake(field, f"{id_!r} is not a call of this approval") for id_ in unknown]
    if mistakes:
        raise Mistakes(mistakes)


def _is_same_model(one: str, other: str) -> bool:
    # The UUID of a group may be written in either case.
    return one == other or (one.startswith("group:") and one.lower() == other.lower())
