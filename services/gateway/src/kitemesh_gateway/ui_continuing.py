"""What follows an answered hold, as one more piece of the message that was held: decided here, and told from there."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from aiohttp import web

from kitemesh_gateway.auth import Principal
from kitemesh_gateway.deciding import Audience, Deciding
from kitemesh_gateway.dialects.base import Facts
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.relay import Relay
from kitemesh_gateway.replies import Replies
from kitemesh_gateway.turns import Turns
from kitemesh_gateway.ui_answers import Answered
from kitemesh_gateway.watches import Sink, Watched
from kitemesh_runtime.holds import Hold


class UiContinuing:
    """Decides, and answers with what follows.

    Args:
        replica: This gateway, as it is addressed.
        budget_s: How long the rest of a turn is waited for.

    """

    def __init__(
        self, deciding: Deciding, *, turns: Turns, relay: Relay, replies: Replies, replica: str, budget_s: float
    ) -> None:
        self._deciding: Final = deciding
        self._turns: Final = turns
        self._relay: Final = relay
        self._replies: Final = replies
        self._replica: Final = replica
        self._budget_s: Final = budget_s

    async def decide(self, exchange: Exchange, principal: Principal, found: Answered) -> None:
        """Decide what is undecided; whoever follows the turn is told what comes of it.

        Raises:
            KitemeshError: As `Deciding.decide` does.

        """
        if found.hold is not None:
            origin = exchange.request.remote or ""
            await self._deciding.decide(principal, found.hold.id, found.answers, origin=origin)

    async def answer(
        self, exchange: Exchange, principal: Principal, found: Answered, *, stream: bool
    ) -> web.StreamResponse:
        """Decide what is undecided, and answer with what the turn says behind the step that was held.

        Raises:
            KitemeshError: As `Deciding.decide` does, or too many turns are followed here (`queue.full`).

        """
        turn = found.turn
        if found.hold is None:
            self._turns.admit_reader()
        else:
            self._turns.admit()
        exchange.turn, exchange.conversation = turn.id, turn.conversation or ""
        facts = Facts(
            turn=turn.id,
            model=turn.model,
            created_s=turn.accepted_at_ms // 1000,
            label=turn.request or "",
            conversation=turn.conversation,
            include_usage=False,
            resumable=True,
            after_step=found.step,
            message=turn.message,
            row=turn.row,
            agent=turn.agent,
        )
        encoder = exchange.dialect.encoder(facts)
        watched = Watched(
            turn=turn.id,
            tenant=turn.tenant,
            budget_s=self._budget_s,
            stream=stream,
            conversation=turn.conversation,
            acts=True,
            durable=True,
            model=turn.model,
            after_step=found.step,
            decided=found.calls,
        )
        run = partial(self._followed, exchange, principal, found, watched)
        if stream:
            return await self._replies.stream(exchange, encoder, run, opens_at_once=True)
        return await self._replies.whole(exchange, encoder, run)

    @asynccontextmanager
    async def _followed(
        self, exchange: Exchange, principal: Principal, found: Answered, watched: Watched, sink: Sink
    ) -> AsyncIterator[None]:
        """Have the rest of the turn told to the sink while inside."""
        async with AsyncExitStack() as stack:

            async def attach(_: Hold) -> None:
                await stack.enter_async_context(self._relay.attached(watched, sink))

            if found.hold is None:
                await stack.enter_async_context(self._relay.attached(watched, sink))
            else:
                await self._deciding.decide(
                    principal,
                    found.hold.id,
                    found.answers,
                    origin=exchange.request.remote or "",
                    audience=Audience(self._replica, watched.stream),
                    attach=attach,
                )
            yield
