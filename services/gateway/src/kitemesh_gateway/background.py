"""`POST /v1/executions`: a turn that is accepted and goes on without its client."""

from typing import Final

from aiohttp import web
from msgspec.structs import replace

from kitemesh_contracts.codec import encode
from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.headers import LAST_EVENT_ID, LOCATION
from kitemesh_gateway.accepting import Accepting
from kitemesh_gateway.admission import Admission
from kitemesh_gateway.dialects.base import JSON, Mistake, Mistakes
from kitemesh_gateway.dialects.native_rendering import accepted_out
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.idempotency import claimed_as
from kitemesh_gateway.preparing import Preparing
from kitemesh_gateway.reading import Reading
from kitemesh_gateway.turns import Turns
from kitemesh_gateway.wishes import wished

ROUTE: Final = "executions"
"""What an idempotency key is claimed for here."""
_ACCEPTED: Final = 202


class Background:
    """Accepts background runs.

    Args:
        reading: Of files, too.

    """

    def __init__(
        self,
        reading: Reading,
        turns: Turns,
        accepting: Accepting,
        preparing: Preparing,
        admission: Admission,
    ) -> None:
        self._reading: Final = reading
        self._turns: Final = turns
        self._accepting: Final = accepting
        self._preparing: Final = preparing
        self._admission: Final = admission

    async def handle(self, exchange: Exchange) -> web.Response:
        """Accept a run and say where it can be seen."""
        principal, body, decoded, given = await self._reading.read(exchange)
        headers = exchange.request.headers
        if LAST_EVENT_ID in headers:
            raise Mistakes([Mistake(LAST_EVENT_ID, "belongs to a stream: GET /v1/executions/{id}/stream takes it")])
        asked = wished(headers, replace(exchange.dialect.parse(decoded), durable=True))
        key = claimed_as(ROUTE, given, body)
        route = self._turns.route(principal, asked)
        await self._turns.check_conversation(principal, asked.conversation)
        mode = self._turns.mode(asked, route, keyed=given is not None)
        asked, exchange.more_headers = await self._preparing.prepare(principal.tenant, asked, route)
        start = self._turns.accept(
            principal, asked, route, mode=mode, request_id=exchange.request_id, dialect=exchange.dialect.name
        )
        await self._admission.reserve(exchange, start)
        stored = await self._accepting.store(start, key, asked.files)
        if isinstance(stored, StartTurn):
            self._admission.named(exchange, stored)
            await self._accepting.publish(stored, key)
        else:
            exchange.replayed = True
            self._admission.attached(exchange)
        told = accepted_out(stored)
        exchange.turn, exchange.conversation = told.id, told.conversation_id or ""
        location = {LOCATION: f"/v1/executions/{told.id}"}
        return exchange.respond(encode(told), JSON, status=_ACCEPTED, headers=location)
