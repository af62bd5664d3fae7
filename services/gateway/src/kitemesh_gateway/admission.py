"""What a request takes of its key's and its tenant's limits, from its credential to its end, whichever way it ends.

A request that is refused takes nothing, and none leaves a slot behind.
"""

from typing import Final

from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.content import Message, UserMessage
from kitemesh_gateway.auth import Principal
from kitemesh_gateway.dialects.base import RETRIED
from kitemesh_gateway.exchange import GONE, Exchange
from kitemesh_gateway.limiter import Limited, Limiter, estimate
from kitemesh_gateway.pressure import Pressure


class Admission:
    """Admits requests and turns.

    Args:
        limiter: Knows what keys and tenants may use.
        pressure: Knows what waits for the model-runners.

    """

    def __init__(self, limiter: Limiter, pressure: Pressure) -> None:
        self._limiter: Final = limiter
        self._pressure: Final = pressure

    async def admit(self, exchange: Exchange, principal: Principal) -> None:
        """Take one request.

        Raises:
            Busy: There were too many in a minute (`limit.rate`).

        """
        try:
            exchange.permit = await self._limiter.admit(principal)
        except Limited as exc:
            exchange.more_headers = exc.headers
            raise

    async def reserve(self, exchange: Exchange, start: StartTurn) -> None:
        """Take what a turn needs.

        Raises:
            Busy: It would wait too long (`queue.full`), too many turns are open (`limit.concurrency`), or there were
                too many tokens in a minute (`limit.rate`).

        """
        self._pressure.check(start)
        permit = exchange.permit
        if permit is None or not permit.is_limited:
            return
        await self._limiter.reserve(permit, start.turn, _tokens(start))
        exchange.reserved = start

    def attached(self, exchange: Exchange) -> None:
        """Give back what was taken for a turn that is another request's: only the request itself counts."""
        if exchange.reserved is not None:
            self._limiter.ended(exchange.reserved.turn, 0)
            exchange.reserved = None

    def named(self, exchange: Exchange, start: StartTurn) -> None:
        """Take note of the id that a turn has from now on: that of an earlier try, if one came to nothing."""
        reserved = exchange.reserved
        if reserved is not None and reserved.turn != start.turn:
            self._limiter.renamed(reserved.turn, start.turn)
            exchange.reserved = start

    def close(self, exchange: Exchange, status: int, *, refused: bool) -> None:
        """Give back what an answered request does not use any more.

        Args:
            exchange: The request.
            status: Of its answer.
            refused: Nothing was run for it.

        """
        reserved = exchange.reserved
        if reserved is None:
            if refused and status in RETRIED:
                self._give_back(exchange)
        elif refused:
            self._give_back(exchange)
        elif reserved.mode == "classic":
            if exchange.turn:
                # Its closing event has settled it, unless its client went away before.
                self._limiter.ended(reserved.turn)
            else:
                self._give_back(exchange)
        elif not exchange.turn and exchange.code != GONE:
            self._give_back(exchange)
        # A durable turn goes on without its client, and whoever accepts it in the end says so if none comes of it.

    def _give_back(self, exchange: Exchange) -> None:
        if exchange.permit is not None:
            self._limiter.release(exchange.permit)
        exchange.reserved = None


def _tokens(start: StartTurn) -> int:
    """Estimate the tokens of a turn, as far as its gateway knows them: a stored history is not counted."""
    return estimate(sum(map(_characters, start.input)), start.sampling.max_tokens)


def _characters(message: Message) -> int:
    return (
        sum(len(getattr(part, "text", "")) for part in message.parts)
        if isinstance(message, UserMessage)
        else len(message.text)
    )
