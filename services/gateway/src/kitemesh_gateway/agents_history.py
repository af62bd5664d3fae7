"""The routes of an agent's history: shown page by page, and cleared."""

import asyncio
from typing import Final

from aiohttp import web

from kitemesh_contracts.codec import encode
from kitemesh_contracts.deltas import RESULT_SHOWN_CHARS
from kitemesh_contracts.scopes import Scope
from kitemesh_gateway.agents_chat import known_agent
from kitemesh_gateway.agents_clearing import AgentsClearing
from kitemesh_gateway.auth import Authenticator, Principal
from kitemesh_gateway.dialects.agents_answers import ClearedOut
from kitemesh_gateway.dialects.agents_bodies import parse_clear, parse_history
from kitemesh_gateway.dialects.agents_rendering import blobs_of, history_out, holds_of
from kitemesh_gateway.dialects.base import JSON
from kitemesh_gateway.exchange import Exchange
from kitemesh_runtime.blobs import Blobs
from kitemesh_runtime.catalog_file import CatalogHandle
from kitemesh_runtime.holds import Hold, Holds
from kitemesh_runtime.rows import Row, Rows

_SHOWN_BYTES: Final = 4 * (RESULT_SHOWN_CHARS + 1)
"""As many as one character more than is shown may have, so that it is told that there is more."""


class AgentsHistory:
    """Answers `GET` and `DELETE /api/agents/{id}/chat`."""

    def __init__(
        self,
        authenticator: Authenticator,
        rows: Rows,
        holds: Holds,
        blobs: Blobs,
        *,
        clearing: AgentsClearing,
        catalog: CatalogHandle,
    ) -> None:
        self._authenticator: Final = authenticator
        self._rows: Final = rows
        self._holds: Final = holds
        self._blobs: Final = blobs
        self._clearing: Final = clearing
        self._catalog: Final = catalog

    async def read(self, exchange: Exchange) -> web.Response:
        """Show a page of the history.

        Raises:
            NotFound: There is no such agent, or not for this key.

        """
        principal = await self._identify(exchange)
        query = parse_history(exchange.request.query.items())
        agent, tenant = known_agent(self._catalog, principal, exchange.tail), principal.tenant
        page, total = await asyncio.gather(
            self._rows.page(tenant, agent, query), self._rows.count(tenant, agent, conversation=query.conversation)
        )
        texts = await self._texts_of(tenant, page.rows)
        holds = await self._holds_of(tenant, page.rows)
        shown = history_out(page, total, tools=self._catalog.current.tools, texts=texts, holds=holds)
        return exchange.respond(encode(shown), JSON)

    async def clear(self, exchange: Exchange) -> web.Response:
        """Remove the history, or that of one conversation; again there is nothing to remove.

        Raises:
            NotFound: There is no such agent, or not for this key.

        """
        principal = await self._identify(exchange)
        conversation = parse_clear(exchange.request.query.items())
        agent = known_agent(self._catalog, principal, exchange.tail)
        deleted = await self._clearing.clear(principal, agent, conversation, origin=exchange.request.remote or "")
        return exchange.respond(encode(ClearedOut(success=True, deleted=deleted)), JSON)

    async def _texts_of(self, tenant: str, rows: tuple[Row, ...]) -> dict[str, str]:
        """Return what is kept of large results, one after the other: only the beginning of each is shown."""
        texts: dict[str, str] = {}
        for name in blobs_of(rows):
            data = await self._blobs.get(tenant, name)
            if data is not None:
                texts[name] = data[:_SHOWN_BYTES].decode(errors="replace")
        return texts

    async def _holds_of(self, tenant: str, rows: tuple[Row, ...]) -> dict[str, Hold]:
        found = await asyncio.gather(*(self._holds.get(tenant, name) for name in holds_of(rows)))
        return {hold.id: hold for hold in found if hold is not None}

    async def _identify(self, exchange: Exchange) -> Principal:
        authorization = exchange.request.headers.getall("Authorization", ())
        exchange.principal = principal = await self._authenticator.identify(authorization, exchange.peer)
        principal.require(Scope.CHAT)
        return principal
