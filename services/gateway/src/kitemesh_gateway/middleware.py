"""The one way in and out: every request is routed, answered, counted and logged here, and every error becomes a body.

A client never sees an internal text: what nobody meant to raise is a fixed sentence with the request's id.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Final

import msgspec
import structlog
from aiohttp import web

from kitemesh_contracts.errors import (
    MEANINGS,
    BadRequest,
    ErrorCode,
    KitemeshError,
    NotFound,
    Unavailable,
)
from kitemesh_contracts.headers import RETRY_AFTER, SHOULD_RETRY
from kitemesh_gateway.admission import Admission
from kitemesh_gateway.dialects.base import FINAL, RETRIED, Mistakes, Refused
from kitemesh_gateway.exchange import GONE, Endpoint, Exchange
from kitemesh_gateway.outflow import Outflow, Stragglers
from kitemesh_gateway.routing import Found, Router
from kitemesh_gateway.watches import TurnFailed
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.metrics import HTTP_DURATION, HTTP_OPEN, HTTP_REFUSALS, HTTP_REQUESTS

CLIENT_GONE_STATUS: Final = 499
"""Never sent: stands in logs and metrics for a client that did not wait."""
DEFAULT_RETRY_S: Final = 1.0
_LARGE_BYTES: Final = 64 * 1024
_INTERNAL: Final = "Internal error; the request id names it in the server's log"
_UNAUTHORIZED: Final = 401
_NOWHERE: Final = "There is nothing at this path; the API is under /v1, its reference at /docs"
_SHOWN_METHOD_CHARS: Final = 16

_NOTHING_RUN: Final = frozenset(code for code, meaning in MEANINGS.items() if meaning.outcome == "refused")
_REFUSED: Final = {code: HTTP_REFUSALS.labels(code).inc for code in ErrorCode}

_Meter = tuple[Callable[[], None], Callable[[float], None]]

log: Final = structlog.get_logger()


class Funnel:
    """Answers every request.

    Args:
        router: Knows the endpoints.
        stragglers: Look after large answers until their clients have them.
        is_draining: No new requests are taken.
        clock: Time.
        admission: Takes back what a request does not use.

    """

    def __init__(
        self,
        router: Router,
        stragglers: Stragglers,
        is_draining: Callable[[], bool],
        clock: Clock,
        admission: Admission,
    ) -> None:
        self._admission: Final = admission
        self._router: Final = router
        self._stragglers: Final = stragglers
        self._is_draining: Final = is_draining
        self._clock: Final = clock
        self._meters: dict[tuple[str, int], _Meter] = {}
        self._open = 0
        HTTP_OPEN.set_function(lambda: self._open)
        self._idle = asyncio.Event()
        self._idle.set()

    async def wait_idle(self) -> None:
        """Return when no request waits for its answer."""
        await self._idle.wait()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request, whatever happens."""
        found = self._router.find(request.method, request.path)
        route = found.endpoint.path if found.endpoint else ""
        exchange = Exchange(request, self._clock, found.dialect, route, found.tail)
        status = CLIENT_GONE_STATUS
        if not self._open:
            self._idle.clear()
        self._open += 1
        try:
            response = await self._answer(exchange, found)
            status = response.status
            self._look_after(request, response)
            return response
        finally:
            self._open -= 1
            if not self._open:
                self._idle.set()
            self._admission.close(exchange, status, refused=exchange.code in _NOTHING_RUN)
            self._note(exchange, found.label, status)

    def refuse_unreadable(self, request: web.BaseRequest) -> web.Response:
        """Answer what is no HTTP request."""
        found = self._router.find("", "")
        exchange = Exchange(request, self._clock, found.dialect)
        error = BadRequest(ErrorCode.REQUEST_MALFORMED, "This is not an HTTP request that this server can read")
        response = self._refuse(exchange, error)
        response.force_close()
        self._note(exchange, found.label, response.status)
        return response

    async def _answer(self, exchange: Exchange, found: Found) -> web.StreamResponse:
        try:
            return await self._endpoint(found, exchange.request.method).handle(exchange)
        except (asyncio.CancelledError, ConnectionError):
            exchange.code = GONE
            raise
        except KitemeshError as exc:
            if exc.status == MEANINGS[ErrorCode.INTERNAL].status:
                log.exception("request.failed", request=exchange.request_id)
            return self._refuse(exchange, exc, found.allowed)
        except Exception as exc:
            log.exception("request.crashed", request=exchange.request_id)
            if exchange.request.writer.output_size:
                # The status line is out: an honest answer is not possible any more, a broken connection is.
                raise ConnectionResetError("the stream crashed") from exc
            return self._refuse(exchange, KitemeshError(ErrorCode.INTERNAL, _INTERNAL))

    def _endpoint(self, found: Found, method: str) -> Endpoint:
        if self._is_draining():
            message = "This server is stopping; try again"
            raise Unavailable(ErrorCode.DRAINING, message, retry_after_s=DEFAULT_RETRY_S)
        if found.endpoint is not None:
            return found.endpoint
        if found.allowed:
            message = f"This path takes {' or '.join(found.allowed)}, not {method[:_SHOWN_METHOD_CHARS]}"
            raise BadRequest(ErrorCode.REQUEST_METHOD, message)
        raise NotFound(ErrorCode.ROUTE_UNKNOWN, _NOWHERE)

    def _refuse(self, exchange: Exchange, error: KitemeshError, allowed: tuple[str, ...] = ()) -> web.Response:
        status = error.status
        exchange.code = error.code
        _REFUSED[error.code]()
        message = _INTERNAL if status == MEANINGS[ErrorCode.INTERNAL].status else error.message
        about = Refused(
            exchange.request_id,
            exchange.request.path,
            error.mistakes if isinstance(error, Mistakes) else (),
            exchange.conversation,
        )
        info = msgspec.structs.replace(error.info(), message=message)
        # What was never begun, or failed, is no conversation to go on with.
        exchange.conversation = ""
        told = exchange.dialect.refusal(info, about)
        status = told.status or status
        response = exchange.respond(told.body, told.content_type, status=status)
        if status == _UNAUTHORIZED:
            response.headers["WWW-Authenticate"] = "Bearer"
        if status in RETRIED or error.retry_after_s is not None:
            response.headers[RETRY_AFTER] = str(math.ceil(error.retry_after_s or DEFAULT_RETRY_S))
        if error.code is ErrorCode.REQUEST_METHOD:
            response.headers["Allow"] = ", ".join(allowed)
        if error.code in FINAL or (isinstance(error, TurnFailed) and error.has_acted):
            response.headers[SHOULD_RETRY] = "false"
        if error.code is ErrorCode.DRAINING or not exchange.request.content.is_eof():
            # What is left of a refused body must not be read as the next request.
            response.force_close()
        return response

    def _look_after(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        body = response.body if isinstance(response, web.Response) else None
        if isinstance(body, bytes) and len(body) > _LARGE_BYTES and request.transport is not None:
            self._stragglers.add(Outflow(request.transport, len(body)))

    def _meter(self, label: str, status: int) -> _Meter:
        # Looking the labels up each time would cost more than counting.
        meter = self._meters.get((label, status))
        if meter is None:
            meter = (HTTP_REQUESTS.labels(label, str(status)).inc, HTTP_DURATION.labels(label).observe)
            self._meters[label, status] = meter
        return meter

    def _note(self, exchange: Exchange, label: str, status: int) -> None:
        elapsed_ms = exchange.elapsed_ms()
        count, observe = self._meter(label, status)
        count()
        observe(elapsed_ms / 1000)
        principal = exchange.principal
        log.info(
            "request.answered",
            request=exchange.request_id,
            dialect=label,
            route=exchange.route,
            status=status,
            ms=round(elapsed_ms, 1),
            code=exchange.code or None,
            tenant=principal.tenant if principal else None,
            key=principal.key if principal else None,
            turn=exchange.turn or None,
            conversation=exchange.conversation or None,
        )
