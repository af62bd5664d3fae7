"""The gateway's composition root: the only place here that puts things together and names every route."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Final, NamedTuple

import structlog

from kitemesh_contracts.errors import ErrorCode, ErrorInfo
from kitemesh_contracts.scopes import Scope
from kitemesh_gateway.accepting import Accepting
from kitemesh_gateway.approvals import Approvals
from kitemesh_gateway.auth import Authenticator, Principal
from kitemesh_gateway.background import Background
from kitemesh_gateway.cancelling import Cancelling
from kitemesh_gateway.chat import Chat
from kitemesh_gateway.deciding import Deciding
from kitemesh_gateway.dialects.completions import Completions
from kitemesh_gateway.dialects.native import Native
from kitemesh_gateway.draining import send_streams_away
from kitemesh_gateway.events import Events
from kitemesh_gateway.exchange import Endpoint
from kitemesh_gateway.executions import Executions
from kitemesh_gateway.http_server import serve_http
from kitemesh_gateway.middleware import Funnel
from kitemesh_gateway.models import Models
from kitemesh_gateway.reattaching import Reattaching
from kitemesh_gateway.reference import Reference
from kitemesh_gateway.relay import Relay
from kitemesh_gateway.replies import Replies
from kitemesh_gateway.resume import Resume
from kitemesh_gateway.routing import Router
from kitemesh_gateway.settings import GatewaySettings
from kitemesh_gateway.sse import Streams
from kitemesh_gateway.turns import Turns
from kitemesh_runtime.foundation import Foundation, open_foundation
from kitemesh_runtime.lifecycle import Life

LAST_WORDS_S: Final = 1.0
"""How long the explicit errors of a drain that ran out of time may take to go out."""

STOPPED: Final = ErrorInfo(
    code=ErrorCode.DRAINING, message="This server stopped before the answer was complete", retry_after_s=1
)

log: Final = structlog.get_logger()


class Gateway(NamedTuple):
    """A gateway that serves."""

    port: int
    funnel: Funnel
    relay: Relay


async def serve(settings: GatewaySettings, life: Life) -> None:
    """Serve clients until told to stop."""
    relays: list[Relay] = []
    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(
            open_foundation("gateway", settings, life, load=lambda: sum(map(len, relays))),
        )
        gateway = await stack.enter_async_context(open_gateway(settings, life, base))
        relays.append(gateway.relay)
        log.info("gateway.listening", host=settings.host, port=gateway.port)
        life.ready()
        await life.stopping.wait()
        await drain(gateway, life, settings.drain_s)


@asynccontextmanager
async def open_gateway(settings: GatewaySettings, life: Life, base: Foundation) -> AsyncIterator[Gateway]:
    """Put the gateway together on its foundation and serve while inside."""
    relay = Relay(base.bus, base.parcels, base.stores.live_turns, base.stores.holds, base.clock)
    streams = Streams(
        base.clock,
        ping_s=settings.ping_s,
        patience_s=settings.slow_client_s,
        max_unsent_bytes=settings.max_unsent_bytes,
        first_event_s=settings.first_event_s,
    )
    turns = Turns(
        replica=life.replica,
        bus=base.bus,
        parcels=base.parcels,
        relay=relay,
        conversations=base.stores.conversations,
        catalog=base.catalog,
        clock=base.clock,
        store_state=base.store_state,
        budget_s=settings.turn_budget_s,
        max_open=settings.max_streams,
    )
    authenticator = Authenticator(
        base.stores.keys,
        settings.key_pepper.get_secret_value().encode(),
        base.clock,
        anonymous(settings),
        base.store_state,
    )
    stores = base.stores
    replies = Replies(streams)
    accepting = Accepting(
        turns,
        stores.live_turns,
        stores.claims,
        stores.conversations,
        bus=base.bus,
        relay=relay,
        clock=base.clock,
    )
    reattaching = Reattaching(
        authenticator,
        stores.live_turns,
        turns=turns,
        relay=relay,
        replies=replies,
        catalog=base.catalog,
        budget_s=settings.turn_budget_s,
        max_body_bytes=settings.max_body_bytes,
        body_timeout_s=settings.body_timeout_s,
    )
    chat = Chat(
        authenticator,
        turns,
        accepting,
        reattaching,
        replies,
        max_body_bytes=settings.max_body_bytes,
        body_timeout_s=settings.body_timeout_s,
    )
    background = Background(
        authenticator,
        turns,
        accepting,
        max_body_bytes=settings.max_body_bytes,
        body_timeout_s=settings.body_timeout_s,
    )
    deciding = Deciding(stores.holds, stores.audit, base.bus, base.catalog)
    approvals = Approvals(
        authenticator,
        stores.holds,
        stores.audit,
        deciding,
        base.catalog,
        max_body_bytes=settings.max_body_bytes,
        body_timeout_s=settings.body_timeout_s,
    )
    cancelling = Cancelling(
        stores.live_turns,
        stores.holds,
        stores.ledger,
        stores.audit,
        relay=relay,
        bus=base.bus,
        catalog=base.catalog,
    )
    executions = Executions(
        authenticator, stores.live_turns, stores.holds, cancelling=cancelling, reattaching=reattaching
    )
    resume = Resume(
        authenticator,
        stores.holds,
        stores.live_turns,
        deciding,
        turns=turns,
        relay=relay,
        replies=replies,
        replica=life.replica,
        budget_s=settings.turn_budget_s,
        max_body_bytes=settings.max_body_bytes,
        body_timeout_s=settings.body_timeout_s,
        reattach=reattaching.handle,
    )
    events = Events(authenticator, base.bus, base.clock, ping_s=settings.ping_s, patience_s=settings.slow_client_s)
    models = Models(authenticator, base.catalog)
    reference = Reference(version("kitemesh-gateway"))
    completions, native = Completions(), Native()
    router = Router(
        (
            Endpoint("POST", "/v1/chat/completions", completions, chat.handle, completions.name),
            Endpoint("POST", "/v1/chat/resume", completions, resume.handle, "resume"),
            Endpoint("GET", "/v1/models", completions, models.all, "models"),
            Endpoint("GET", "/v1/models/{+id}", completions, models.one, "models"),
            Endpoint("GET", "/v1/approvals", native, approvals.all, "approvals"),
            Endpoint("GET", "/v1/approvals/{id}", native, approvals.one, "approvals"),
            Endpoint("POST", "/v1/approvals/{id}/decide", native, approvals.decide, "approvals"),
            Endpoint("GET", "/v1/executions", native, executions.all, "executions"),
            Endpoint("POST", "/v1/executions", native, background.handle, "executions"),
            Endpoint("GET", "/v1/executions/{id}", native, executions.one, "executions"),
            Endpoint("GET", "/v1/executions/{id}/stream", native, executions.stream, "executions"),
            Endpoint("POST", "/v1/executions/{id}/cancel", native, executions.cancel, "executions"),
            Endpoint("GET", "/v1/events", native, events.handle, "events"),
            Endpoint("GET", "/", completions, reference.entrance, "reference"),
            Endpoint("GET", "/openapi.json", completions, reference.document, "reference"),
            Endpoint("GET", "/docs", completions, reference.page, "reference"),
        ),
        fallback=completions,
    )
    funnel = Funnel(router, streams.stragglers, life.stopping.is_set, base.clock)
    await authenticator.listen(base.bus)
    await cancelling.listen()
    await relay.listen(life.replica)
    tasks = life.background(
        relay_timer=relay.run(),
        relay_look_up=relay.look_up(),
        stream_timer=streams.run(),
        renew_locks=turns.renew_locks(),
        stored_cancels=cancelling.run(),
        events=events.run(life.stopping),
    )
    async with tasks, serve_http(funnel, settings.host, settings.port) as port:
        yield Gateway(port, funnel, relay)


def anonymous(settings: GatewaySettings) -> Principal | None:
    """Return on whose behalf a request without a credential runs, if it may."""
    if not settings.anonymous_tenant:
        return None
    return Principal(
        tenant=settings.anonymous_tenant,
        key="",
        scopes=frozenset(map(Scope, settings.anonymous_scopes.split(","))),
        default_agent=settings.anonymous_agent or None,
    )


async def drain(gateway: Gateway, life: Life, drain_s: float) -> None:
    """Send durable streams elsewhere and let the others finish, as long as they may.

    What is left then ends with an explicit error.
    """
    sending = asyncio.create_task(send_streams_away(gateway.relay, drain_s), name="send-away")
    await _idle(gateway, life.stopping_now, drain_s)
    sending.cancel()
    (outcome,) = await asyncio.gather(sending, return_exceptions=True)
    if isinstance(outcome, Exception):
        log.error("streams.not_sent_away", exc_info=outcome)
    left = len(gateway.relay)
    if left:
        log.warning("gateway.cut_short", turns=left)
        gateway.relay.withdraw_all(STOPPED)
        await _idle(gateway, asyncio.Event(), LAST_WORDS_S)


async def _idle(gateway: Gateway, hurry: asyncio.Event, timeout_s: float) -> None:
    waits = [asyncio.create_task(gateway.funnel.wait_idle()), asyncio.create_task(hurry.wait())]
    _, pending = await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for wait in pending:
        wait.cancel()
