"""The route of usage: what a tenant's turns cost, by day, model or key. It needs the scope `admin`.

Who has the scope `operator` may name another tenant, or ask for all of them by their names.
"""

from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from kitemesh_contracts.codec import encode
from kitemesh_contracts.scopes import Scope
from kitemesh_gateway.auth import Authenticator
from kitemesh_gateway.dialects.base import JSON
from kitemesh_gateway.dialects.usage_answers import usage_page
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.usage_query import cursor_behind, read_usage_query
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.usage import Usages


class Usage:
    """Answers what concerns usage."""

    def __init__(self, authenticator: Authenticator, usage: Usages, clock: Clock) -> None:
        self._authenticator: Final = authenticator
        self._usage: Final = usage
        self._clock: Final = clock

    async def read(self, exchange: Exchange) -> web.Response:
        """Tell what turns cost."""
        authorization = exchange.request.headers.getall("Authorization", ())
        exchange.principal = principal = await self._authenticator.identify(authorization, exchange.peer)
        if Scope.OPERATOR not in principal.scopes:
            principal.require(Scope.ADMIN)
        today = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC).date()
        asked = read_usage_query(exchange.request.query, today)
        is_everybodys = asked.by == "tenant"
        if is_everybodys or asked.tenant not in (None, principal.tenant):
            principal.require(Scope.OPERATOR)
        # First: what is counted meanwhile is told, and not said to be.
        as_of_s = await self._usage.as_of()
        found = await self._usage.read(
            None if is_everybodys else asked.tenant or principal.tenant,
            asked.period,
            by=asked.by,
            after=asked.after,
            limit=asked.limit + 1,
        )
        shown = found[: asked.limit]
        cursor = cursor_behind(shown[-1].name) if len(found) > len(shown) else None
        return exchange.respond(encode(usage_page(shown, asked.by, as_of_s=as_of_s, cursor=cursor)), JSON)
