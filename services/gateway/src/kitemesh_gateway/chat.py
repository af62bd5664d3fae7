"""The route that runs a turn, in any dialect: check, read, parse, run, answer.

The order of the checks is part of the contract: headers, credential, body, JSON, schema, model.
"""

from functools import partial
from typing import Final

from aiohttp import web

from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.errors import BadRequest, ErrorCode
from kitemesh_contracts.headers import IDEMPOTENCY_KEY, LAST_EVENT_ID
from kitemesh_contracts.scopes import Scope
from kitemesh_gateway import strict_json
from kitemesh_gateway.auth import Authenticator
from kitemesh_gateway.body import check_headers, read_body
from kitemesh_gateway.dialects.base import Facts, TurnRequest
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.replies import Replies
from kitemesh_gateway.turns import Turns


class Chat:
    """Answers chat requests.

    Args:
        max_body_bytes: Largest body.
        body_timeout_s: How long a body may take.

    """

    def __init__(
        self,
        authenticator: Authenticator,
        turns: Turns,
        replies: Replies,
        *,
        max_body_bytes: int,
        body_timeout_s: float,
    ) -> None:
        self._authenticator: Final = authenticator
        self._turns: Final = turns
        self._replies: Final = replies
        self._max_body_bytes: Final = max_body_bytes
        self._body_timeout_s: Final = body_timeout_s

    async def handle(self, exchange: Exchange) -> web.StreamResponse:
        """Run a turn and answer with it."""
        request = exchange.request
        check_headers(request, self._max_body_bytes)
        principal = await self._authenticator.identify(request.headers.getall("Authorization", ()))
        exchange.principal = principal
        principal.require(Scope.CHAT)
        for header in (IDEMPOTENCY_KEY, LAST_EVENT_ID):
            if header in request.headers:
                raise BadRequest(ErrorCode.REQUEST_UNSUPPORTED, f"The header {header} is not supported yet")
        body = await read_body(request, self._max_body_bytes, self._body_timeout_s)
        asked = exchange.dialect.parse(strict_json.decode(body))
        start = self._turns.accept(principal, asked, self._turns.route(principal, asked))
        exchange.turn = start.turn
        exchange.conversation = start.conversation or ""
        encoder = exchange.dialect.encoder(_facts(exchange, asked, start))
        run = partial(self._turns.running, start)
        reply = self._replies.stream if asked.stream else self._replies.whole
        return await reply(exchange, encoder, run)


def _facts(exchange: Exchange, asked: TurnRequest, start: StartTurn) -> Facts:
    return Facts(
        turn=start.turn,
        model=asked.model,
        created_s=start.accepted_at_ms // 1000,
        label=exchange.request_id if asked.label is None else asked.label,
        conversation=start.conversation,
        include_usage=asked.include_usage,
    )
