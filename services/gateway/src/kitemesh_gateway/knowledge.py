"""The routes of the knowledge base: store a document, list them, show one, remove it. All need the scope `admin`."""

from http import HTTPStatus
from typing import Final

from aiohttp import web

from kitemesh_contracts.codec import encode
from kitemesh_contracts.errors import BadRequest, ErrorCode, NotFound
from kitemesh_contracts.scopes import Scope
from kitemesh_gateway import strict_json
from kitemesh_gateway.auth import Authenticator, Principal
from kitemesh_gateway.body import check_headers, read_body
from kitemesh_gateway.dialects.base import JSON
from kitemesh_gateway.dialects.knowledge_answers import DocumentPage, DocumentRemoved, document_out
from kitemesh_gateway.dialects.knowledge_bodies import parse_document
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.paging import cursor_of, read_query
from kitemesh_runtime.knowledge import DOCUMENT_MAX_CHARS, Knowledge
from kitemesh_runtime.knowledge_chunks import is_markdown, split


class KnowledgeBase:
    """Answers what concerns the knowledge base.

    Args:
        max_body_bytes: Largest body.
        body_timeout_s: How long a body may take.

    """

    def __init__(
        self, authenticator: Authenticator, knowledge: Knowledge, *, max_body_bytes: int, body_timeout_s: float
    ) -> None:
        self._authenticator: Final = authenticator
        self._knowledge: Final = knowledge
        self._max_body_bytes: Final = max_body_bytes
        self._body_timeout_s: Final = body_timeout_s

    async def add(self, exchange: Exchange) -> web.Response:
        """Store a document, or put it in the place of the one of that name."""
        check_headers(exchange.request, self._max_body_bytes)
        principal = await self._identify(exchange)
        body = await read_body(exchange.request, self._max_body_bytes, self._body_timeout_s)
        asked = parse_document(strict_json.decode(body))
        if len(asked.text) > DOCUMENT_MAX_CHARS:
            message = f"A document must not be longer than {DOCUMENT_MAX_CHARS} characters"
            raise BadRequest(ErrorCode.REQUEST_TOO_LARGE, message)
        markdown = is_markdown(asked.name) if asked.format is None else asked.format == "markdown"
        stored = await self._knowledge.put(
            principal.tenant,
            asked.base,
            asked.name,
            split(asked.text, markdown=markdown),
            characters=len(asked.text),
        )
        status = HTTPStatus.CREATED if stored.is_new else HTTPStatus.OK
        return exchange.respond(encode(document_out(stored.document)), JSON, status=status)

    async def all(self, exchange: Exchange) -> web.Response:
        """List the tenant's documents."""
        principal = await self._identify(exchange)
        asked = read_query(exchange, (), ("base",))
        found = await self._knowledge.page(
            principal.tenant, base=asked.ids.get("base"), before=asked.before, limit=asked.limit + 1
        )
        shown = found[: asked.limit]
        after = shown[-1].id if len(found) > len(shown) else None
        page = DocumentPage(data=tuple(document_out(each) for each in shown), next_cursor=cursor_of(after))
        return exchange.respond(encode(page), JSON)

    async def one(self, exchange: Exchange) -> web.Response:
        """Show one, with its passages.

        Raises:
            NotFound: There is none.

        """
        principal = await self._identify(exchange)
        document = await self._knowledge.get(principal.tenant, exchange.tail)
        chunks = await self._knowledge.read(principal.tenant, exchange.tail)
        if document is None or chunks is None:
            raise _unknown()
        return exchange.respond(encode(document_out(document, chunks)), JSON)

    async def remove(self, exchange: Exchange) -> web.Response:
        """Remove one, with all that was stored of it.

        Raises:
            NotFound: There is none.

        """
        principal = await self._identify(exchange)
        if not await self._knowledge.remove(principal.tenant, exchange.tail):
            raise _unknown()
        return exchange.respond(encode(DocumentRemoved(id=exchange.tail, deleted=True)), JSON)

    async def _identify(self, exchange: Exchange) -> Principal:
        authorization = exchange.request.headers.getall("Authorization", ())
        exchange.principal = principal = await self._authenticator.identify(authorization, exchange.peer)
        principal.require(Scope.ADMIN)
        return principal


def _unknown() -> NotFound:
    return NotFound(ErrorCode.KNOWLEDGE_UNKNOWN, "There is no such document")
