"""The routes that describe the API. Both pages are rendered once, when the process starts."""

from typing import Final

from aiohttp import web

from kitemesh_contracts.codec import encode
from kitemesh_gateway.dialects.base import JSON
from kitemesh_gateway.docs_page import SECURITY_POLICY, render
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.openapi import document


class Reference:
    """Answers with the API's description."""

    def __init__(self, version: str) -> None:
        described = document(version)
        self._document: Final = encode(described)
        self._page: Final = render(described).encode()

    async def entrance(self, exchange: Exchange) -> web.Response:
        """Lead whoever opens the address itself to the page."""
        return exchange.respond(b"", "text/plain", status=302, headers={"Location": "/docs"})

    async def document(self, exchange: Exchange) -> web.Response:
        """Return the OpenAPI document."""
        return exchange.respond(self._document, JSON)

    async def page(self, exchange: Exchange) -> web.Response:
        """Return the page for people."""
        headers = {"Content-Security-Policy": SECURITY_POLICY}
        return exchange.respond(self._page, "text/html; charset=utf-8", headers=headers)
