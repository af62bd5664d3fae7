"""The route that runs a turn with an agent: it has the turn's numbers reserved, and leaves the rest to `Chat`."""

from typing import Final

from aiohttp import web
from msgspec.structs import replace

from kitemesh_contracts.headers import LAST_EVENT_ID
from kitemesh_gateway.auth import Principal
from kitemesh_gateway.chat import Chat
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.turns import agent_unknown
from kitemesh_runtime.catalog_file import CatalogHandle
from kitemesh_runtime.rows import Rows


class AgentsChat:
    """Answers `POST /api/agents/{id}/chat`."""

    def __init__(self, chat: Chat, rows: Rows, catalog: CatalogHandle) -> None:
        self._chat: Final = chat
        self._rows: Final = rows
        self._catalog: Final = catalog

    async def handle(self, exchange: Exchange) -> web.StreamResponse:
        """Run a turn and answer with it."""
        if LAST_EVENT_ID in exchange.request.headers:
            return await self._chat.handle(exchange)
        read = await self._chat.read(exchange)
        asked = exchange.dialect.parse(read.decoded)
        agent = known_agent(self._catalog, read.principal, exchange.tail)
        row = await self._rows.reserve(read.principal.tenant, agent)
        asked = replace(asked, agent=agent, row=row)
        # The path says whom it is for, so the same body is another request there.
        body = b"%b\n%b" % (agent.encode(), read.body)
        return await self._chat.run(exchange, read.principal, asked, key=read.key, body=body)


def known_agent(catalog: CatalogHandle, principal: Principal, agent: str) -> str:
    """Return an agent that exists and is the caller's.

    Raises:
        NotFound: It is not (`model.unknown`).

    """
    if agent not in catalog.current.agents or not principal.allows(f"agent:{agent}"):
        raise agent_unknown()
    return agent
