"""One HTTP request on its way to its answer: its ids, its dialect, and the headers that every answer carries."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

from aiohttp import web

from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.headers import CONVERSATION_ID, EXECUTION_ID, IDEMPOTENCY_REPLAYED, REQUEST_ID
from kitemesh_gateway.auth import Principal
from kitemesh_gateway.dialects.base import Dialect
from kitemesh_gateway.limiter import Permit
from kitemesh_gateway.peers import Peer
from kitemesh_runtime.clock import Clock

GONE: Final = "client.gone"
"""Stands as the code of a request whose client did not wait for the answer."""

_REQUEST_ID: Final = re.compile(r"\A[A-Za-z0-9_=-]{1,255}\Z")
SERVER: Final = "kitemesh"


class Exchange:
    """A request and what is known of it so far.

    Attributes:
        dialect: The route's; its handler may put one in its place that says the same in another way.
        tail: The variable part of the path, decoded; empty for a route without one.
        began_s: On the monotonic clock.
        principal: `None` until the credential was accepted.
        turn: The turn it started; empty until then.
        conversation: The turn's conversation; empty when none is kept.
        code: Why it was refused or failed; empty otherwise.
        replayed: The turn is that of an earlier request with the same idempotency key.
        permit: What it took of its limits; `None` until it was admitted, or for a route without limits.
        reserved: The turn that a slot and tokens were taken for.
        more_headers: Sent with the answer, beside what every answer has.

    """

    __slots__ = (
        "began_s",
        "clock",
        "code",
        "conversation",
        "dialect",
        "more_headers",
        "permit",
        "principal",
        "replayed",
        "request",
        "request_id",
        "reserved",
        "route",
        "tail",
        "turn",
    )

    def __init__(
        self, request: web.BaseRequest, clock: Clock, dialect: Dialect, route: str = "", tail: str = ""
    ) -> None:
        self.request: Final = request
        self.clock: Final = clock
        self.dialect = dialect
        self.route: Final = route
        self.tail: Final = tail
        self.began_s: Final = clock.monotonic()
        self.request_id: Final = _request_id(request, clock)
        self.principal: Principal | None = None
        self.turn = ""
        self.conversation = ""
        self.code = ""
        self.replayed = False
        self.more_headers: Mapping[str, str] = {}
        self.permit: Permit | None = None
        self.reserved: StartTurn | None = None

    def peer(self) -> Peer:
        """Return what the request shows of its origin."""
        return Peer(self.request.remote or "", self.request.headers.getall("X-Forwarded-For", ()))

    def elapsed_ms(self) -> float:
        """Return the milliseconds since the request arrived."""
        return (self.clock.monotonic() - self.began_s) * 1000

    def headers(self, more: Mapping[str, str] = {}) -> dict[str, str]:
        """Return the headers of an answer."""
        headers = {**more, **self.more_headers}
        if self.permit is not None:
            headers.update(self.permit.headers())
        headers["Server"] = SERVER
        headers["X-Content-Type-Options"] = "nosniff"
        headers[REQUEST_ID] = self.request_id
        if self.turn:
            headers[EXECUTION_ID] = self.turn
            if self.conversation:
                headers[CONVERSATION_ID] = self.conversation
            if self.replayed:
                headers[IDEMPOTENCY_REPLAYED] = "true"
        return headers

    def respond(
        self,
        body: bytes,
        content_type: str,
        *,
        status: int = 200,
        headers: Mapping[str, str] = {},
    ) -> web.Response:
        """Return a whole answer."""
        complete = self.headers(headers)
        complete["Content-Type"] = content_type
        return web.Response(body=body, status=status, headers=complete)


Handler = Callable[[Exchange], Awaitable[web.StreamResponse]]


class Endpoint(NamedTuple):
    """A route.

    Attributes:
        path: Exact, or with one variable part: `{…}` is an id, a last `{+…}` takes the whole rest, slashes included.
        label: What logs and metrics count it under: a dialect that runs turns, or what else it is for.

    """

    method: str
    path: str
    dialect: Dialect
    handle: Handler
    label: str


def _request_id(request: web.BaseRequest, clock: Clock) -> str:
    given = request.headers.get(REQUEST_ID)
    if given is not None and _REQUEST_ID.match(given):
        return given
    return "req_" + clock.new_id().replace("-", "")
