"""`POST /v1/executions`: a turn that is accepted and goes on without its client."""

from typing import Final

from aiohttp import web
from msgspec.structs import replace

from kitemesh_contracts.codec import encode
from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.headers import IDEMPOTENCY_KEY, LAST_EVENT_ID, LOCATION
from kitemesh_contracts.scopes import Scope
from kitemesh_gateway import strict_json
from kitemesh_gateway.accepting import Accepting
from kitemesh_gateway.auth import Authenticator
from kitemesh_gateway.body import check_headers, read_body
from kitemesh_gateway.dialects.base import JSON, Mistake, Mistakes
from kitemesh_gateway.dialects.native_rendering import accepted_out
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.idempotency import claimed_as, read_key
from kitemesh_gateway.preparing import Preparing
from kitemesh_gateway.turns import Turns

ROUTE: Final = "executions"
"""What an idempotency key is claimed for here."""
_ACCEPTED: Final = 202


class Background:
    """Accepts background runs.

    Args:
        max_body_bytes: Largest body.
        body_timeout_s: How long a body may take.

    """

    def __init__(
        self,
        authenticator: Authenticator,
        turns: Turns,
        accepting: Accepting,
        preparing: Preparing,
        *,
        max_body_bytes: int,
        body_timeout_s: float,
    ) -> None:
        self._authenticator: Final = authenticator
        self._turns: Final = turns
        self._accepting: Final = accepting
        self._preparing: Final = preparing
        self._max_body_bytes: Final = max_body_bytes
        self._body_timeout_s: Final = body_timeout_s

    async def handle(self, exchange: Exchange) -> web.Response:
        """Accept a run and say where it can be seen."""
        request = exchange.request
        check_headers(request, self._max_body_bytes)
        principal = await self._authenticator.identify(request.headers.getall("Authorization", ()))
        exchange.principal = principal
        principal.require(Scope.CHAT)
        if LAST_EVENT_ID in request.headers:
            raise Mistakes([Mistake(LAST_EVENT_ID, "belongs to a stream: GET /v1/executions/{id}/stream takes it")])
        given = read_key(request.headers.getall(IDEMPOTENCY_KEY, ()))
        body = await read_body(request, self._max_body_bytes, self._body_timeout_s)
        asked = replace(exchange.dialect.parse(strict_json.decode(body)), durable=True)
        key = claimed_as(ROUTE, given, body)
        route = self._turns.route(principal, asked)
        await self._turns.check_conversation(principal, asked.conversation)
        mode = self._turns.mode(asked, route, keyed=given is not None)
        asked, exchange.more_headers = await self._preparing.prepare(principal.tenant, asked, route)
        start = self._turns.accept(
            principal, asked, route, mode=mode, request_id=exchange.request_id, dialect=exchange.dialect.name
        )
        stored = await self._accepting.store(start, key, asked.files)
        exchange.replayed = not isinstance(stored, StartTurn)
        if isinstance(stored, StartTurn):
            await self._accepting.publish(stored, key)
        told = accepted_out(stored)
        exchange.turn, exchange.conversation = told.id, told.conversation_id or ""
        headers = {LOCATION: f"/v1/executions/{told.id}"}
        return exchange.respond(encode(told), JSON, status=_ACCEPTED, headers=headers)
