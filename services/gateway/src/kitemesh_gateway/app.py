"""The gateway's composition root: the only place here that puts things together and names every route."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from importlib.metadata import version
from typing import Final, NamedTuple

import structlog

from kitemesh_contracts.errors import ErrorCode, ErrorInfo, Unavailable
from kitemesh_contracts.scopes import Scope
from kitemesh_gateway.accepting import Accepting
from kitemesh_gateway.address_limit import AddressLimit
from kitemesh_gateway.administrators import Administrators
from kitemesh_gateway.admission import Admission
from kitemesh_gateway.agents_chat import AgentsChat
from kitemesh_gateway.agents_clearing import AgentsClearing
from kitemesh_gateway.agents_history import AgentsHistory
from kitemesh_gateway.approvals import Approvals
from kitemesh_gateway.auth import Authenticator, Principal
from kitemesh_gateway.background import Background
from kitemesh_gateway.cancelling import Cancelling
from kitemesh_gateway.chat import Chat
from kitemesh_gateway.cluster import Cluster
from kitemesh_gateway.conversations import Conversations
from kitemesh_gateway.dead import Dead
from kitemesh_gateway.deciding import Deciding
from kitemesh_gateway.deleting import Deleting
from kitemesh_gateway.dialects.agents import Agents
from kitemesh_gateway.dialects.completions import Completions
from kitemesh_gateway.dialects.kernel2 import Kernel2
from kitemesh_gateway.dialects.native import Native
from kitemesh_gateway.dialects.run_chat import RunChat
from kitemesh_gateway.dialects.run_completions import RunCompletions
from kitemesh_gateway.draining import send_streams_away
from kitemesh_gateway.events import Events
from kitemesh_gateway.exchange import Endpoint
from kitemesh_gateway.executions import Executions
from kitemesh_gateway.finding import Finding
from kitemesh_gateway.http_server import serve_http
from kitemesh_gateway.keeping import Keeping
from kitemesh_gateway.keys import Keys
from kitemesh_gateway.knowledge import KnowledgeBase
from kitemesh_gateway.limiter import Limiter
from kitemesh_gateway.message_ids import MessageIds
from kitemesh_gateway.middleware import Funnel
from kitemesh_gateway.models import Models
from kitemesh_gateway.passages import Passages
from kitemesh_gateway.preparing import Preparing
from kitemesh_gateway.pressure import Pressure
from kitemesh_gateway.reading import Reading
from kitemesh_gateway.reattaching import Reattaching
from kitemesh_gateway.reckoning import Reckoning
from kitemesh_gateway.reference import Reference
from kitemesh_gateway.relay import Relay
from kitemesh_gateway.replies import Replies
from kitemesh_gateway.requeueing import Requeueing
from kitemesh_gateway.resume import Resume
from kitemesh_gateway.routing import Router
from kitemesh_gateway.settings import GatewaySettings
from kitemesh_gateway.sse import Streams
from kitemesh_gateway.tenants import Tenants
from kitemesh_gateway.turns import Turns
from kitemesh_gateway.ui_answers import UiAnswers
from kitemesh_gateway.ui_chat import UiChat
from kitemesh_gateway.ui_continuing import UiContinuing
from kitemesh_gateway.ui_streams import UiStreams
from kitemesh_gateway.usage import Usage
from kitemesh_runtime.administration import Administration
from kitemesh_runtime.beats import Signs
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.clearing import Clearing
from kitemesh_runtime.dead_letters_nats import NatsDeadLetters
from kitemesh_runtime.fleet import Fleet
from kitemesh_runtime.foundation import Foundation, open_foundation
from kitemesh_runtime.lifecycle import Life
from kitemesh_runtime.news import News

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
            open_foundation("gateway", settings, life, signs=lambda: Signs(sum(map(len, relays)))),
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
    relay = Relay(
        base.bus,
        base.parcels,
        base.stores.live_turns,
        base.stores.holds,
        base.clock,
        conversations=base.stores.conversations,
    )
    streams = Streams(
        base.clock,
        ping_s=settings.ping_s,
        patience_s=settings.slow_client_s,
        max_unsent_bytes=settings.max_unsent_bytes,
        first_event_s=settings.first_event_s,
    )
    message_ids = MessageIds(base.stores.claims, base.stores.live_turns)
    turns = Turns(
        replica=life.replica,
        bus=base.bus,
        parcels=base.parcels,
        relay=relay,
        conversations=base.stores.conversations,
        message_ids=message_ids,
        catalog=base.catalog,
        clock=base.clock,
        store_state=base.store_state,
        budget_s=settings.turn_budget_s,
        max_open=settings.max_streams,
        max_request_bytes=settings.max_body_bytes,
    )
    authenticator = Authenticator(
        base.stores.keys,
        base.directory,
        settings.key_pepper.get_secret_value().encode(),
        base.clock,
        anonymous=anonymous(settings),
        store_state=base.store_state,
        addresses=AddressLimit(settings.address_lookups_per_s, settings.trusted_proxies, base.clock),
    )
    stores = base.stores
    fleet = Fleet(base.clock)
    limiter = limiting(settings, life, base, fleet)
    relay.tell(limiter)
    admission = Admission(limiter, Pressure(fleet, base.catalog, max_wait_s=settings.max_predicted_wait_s))
    # The families that take no files take less.
    reading, text_reading = (
        Reading(authenticator, admission, max_body_bytes=most, body_timeout_s=settings.body_timeout_s)
        for most in (settings.max_file_body_bytes, settings.max_body_bytes)
    )
    replies = Replies(streams)
    keeping = Keeping(stores.blobs)
    preparing = Preparing(base.catalog, Passages(stores.knowledge, base.catalog))
    accepting = Accepting(
        turns,
        stores.live_turns,
        stores.claims,
        stores.conversations,
        message_ids=message_ids,
        keeping=keeping,
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
        max_body_bytes=settings.max_file_body_bytes,
        body_timeout_s=settings.body_timeout_s,
    )
    chat, text_chat = (
        Chat(each, turns, accepting, preparing, admission=admission, reattaching=reattaching, replies=replies)
        for each in (reading, text_reading)
    )
    background = Background(reading, turns, accepting, preparing, admission)
    deciding = Deciding(stores.holds, stores.audit, base.bus, base.catalog)
    approvals = Approvals(
        authenticator,
        admission,
        stores.holds,
        stores.audit,
        deciding,
        catalog=base.catalog,
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
    clearing = Clearing(stores, base.bus, base.catalog)
    deleting = Deleting(
        stores.conversations,
        stores.live_turns,
        cancelling=cancelling,
        clearing=clearing,
        parcels=base.parcels,
        clock=base.clock,
    )
    conversations = Conversations(
        authenticator,
        stores.conversations,
        stores.live_turns,
        stores.holds,
        deleting,
        max_body_bytes=settings.max_body_bytes,
        body_timeout_s=settings.body_timeout_s,
    )
    executions = Executions(
        authenticator, stores.live_turns, stores.holds, cancelling=cancelling, reattaching=reattaching
    )
    resume = Resume(
        text_reading,
        stores.holds,
        stores.live_turns,
        deciding,
        turns=turns,
        relay=relay,
        replies=replies,
        replica=life.replica,
        budget_s=settings.turn_budget_s,
        reattach=reattaching.handle,
    )
    agents_chat = AgentsChat(text_chat, stores.rows, base.catalog)
    agents_history = AgentsHistory(
        authenticator,
        stores.rows,
        stores.holds,
        stores.blobs,
        clearing=AgentsClearing(stores.rows, stores.turns, cancelling=cancelling, clearing=clearing, clock=base.clock),
        catalog=base.catalog,
    )
    run_chat = RunChat(lambda: base.catalog.current.tools)
    ui_continuing = UiContinuing(
        deciding, turns=turns, relay=relay, replies=replies, replica=life.replica, budget_s=settings.turn_budget_s
    )
    ui_answers = UiAnswers(stores.conversations, stores.live_turns, stores.holds)
    ui_chat = UiChat(chat, ui_answers, ui_continuing, reattaching, run_chat)
    ui_streams = UiStreams(authenticator, stores.conversations, stores.live_turns, reattaching, run_chat)
    events = Events(authenticator, base.bus, base.clock, ping_s=settings.ping_s, patience_s=settings.slow_client_s)
    models = Models(authenticator, base.catalog, fleet)
    knowledge = KnowledgeBase(
        authenticator,
        stores.knowledge,
        max_body_bytes=settings.max_body_bytes,
        body_timeout_s=settings.body_timeout_s,
    )
    usage = Usage(authenticator, stores.usage, base.clock)
    desks = administering(settings, life, base, authenticator, fleet)
    reference = Reference(version("kitemesh-gateway"))
    completions, run_completions, native = Completions(), RunCompletions(), Native()
    agents, kernel2 = Agents(), Kernel2()
    router = Router(
        (
            Endpoint("POST", "/v1/chat/completions", completions, chat.handle, completions.name),
            Endpoint("POST", "/v1/chat/resume", completions, resume.handle, "resume"),
            Endpoint("GET", "/v1/models", completions, models.all, "models"),
            Endpoint("GET", "/v1/models/{+id}", completions, models.one, "models"),
            Endpoint("POST", "/run/api/chat", run_chat, ui_chat.handle, run_chat.name),
            Endpoint("GET", "/run/api/chat/{id}/stream", run_chat, ui_streams.active, run_chat.name),
            Endpoint("GET", "/run/v1/conversations/{id}/stream", run_chat, ui_streams.behind, run_chat.name),
            Endpoint("POST", "/run/v1/chat/completions", run_completions, chat.handle, run_completions.name),
            Endpoint("POST", "/api/kernel2/chat", kernel2, text_chat.handle, kernel2.name),
            Endpoint("GET", "/api/agents/{id}/chat", agents, agents_history.read, agents.name),
            Endpoint("POST", "/api/agents/{id}/chat", agents, agents_chat.handle, agents.name),
            Endpoint("DELETE", "/api/agents/{id}/chat", agents, agents_history.clear, agents.name),
            Endpoint("GET", "/v1/approvals", native, approvals.all, "approvals"),
            Endpoint("GET", "/v1/approvals/{id}", native, approvals.one, "approvals"),
            Endpoint("POST", "/v1/approvals/{id}/decide", native, approvals.decide, "approvals"),
            Endpoint("GET", "/v1/conversations", native, conversations.all, "conversations"),
            Endpoint("GET", "/v1/conversations/{id}", native, conversations.one, "conversations"),
            Endpoint("PATCH", "/v1/conversations/{id}", native, conversations.change, "conversations"),
            Endpoint("DELETE", "/v1/conversations/{id}", native, conversations.delete, "conversations"),
            Endpoint("GET", "/v1/conversations/{id}/messages", native, conversations.messages, "conversations"),
            Endpoint("GET", "/v1/executions", native, executions.all, "executions"),
            Endpoint("POST", "/v1/executions", native, background.handle, "executions"),
            Endpoint("GET", "/v1/executions/{id}", native, executions.one, "executions"),
            Endpoint("GET", "/v1/executions/{id}/stream", native, executions.stream, "executions"),
            Endpoint("POST", "/v1/executions/{id}/cancel", native, executions.cancel, "executions"),
            Endpoint("GET", "/v1/knowledge", native, knowledge.all, "knowledge"),
            Endpoint("POST", "/v1/knowledge", native, knowledge.add, "knowledge"),
            Endpoint("GET", "/v1/knowledge/{id}", native, knowledge.one, "knowledge"),
            Endpoint("DELETE", "/v1/knowledge/{id}", native, knowledge.remove, "knowledge"),
            Endpoint("GET", "/v1/usage", native, usage.read, "usage"),
            Endpoint("GET", "/v1/keys", native, desks.keys.all, "keys"),
            Endpoint("POST", "/v1/keys", native, desks.keys.create, "keys"),
            Endpoint("GET", "/v1/keys/{id}", native, desks.keys.one, "keys"),
            Endpoint("PATCH", "/v1/keys/{id}", native, desks.keys.change, "keys"),
            Endpoint("DELETE", "/v1/keys/{id}", native, desks.keys.revoke, "keys"),
            Endpoint("POST", "/v1/keys/{id}/rotate", native, desks.keys.rotate, "keys"),
            Endpoint("GET", "/v1/tenants", native, desks.tenants.all, "tenants"),
            Endpoint("GET", "/v1/tenants/{id}", native, desks.tenants.one, "tenants"),
            Endpoint("PUT", "/v1/tenants/{id}", native, desks.tenants.put, "tenants"),
            Endpoint("DELETE", "/v1/tenants/{id}", native, desks.tenants.remove, "tenants"),
            Endpoint("GET", "/v1/audit", native, desks.tenants.audit, "audit"),
            Endpoint("GET", "/v1/cluster", native, desks.cluster.read, "cluster"),
            Endpoint("GET", "/v1/dead", native, desks.dead.all, "dead"),
            Endpoint("GET", "/v1/dead/{id}", native, desks.dead.one, "dead"),
            Endpoint("DELETE", "/v1/dead/{id}", native, desks.dead.drop, "dead"),
            Endpoint("POST", "/v1/dead/{id}/requeue", native, desks.dead.requeue, "dead"),
            Endpoint("GET", "/v1/events", native, events.handle, "events"),
            Endpoint("GET", "/", completions, reference.entrance, "reference"),
            Endpoint("GET", "/openapi.json", completions, reference.document, "reference"),
            Endpoint("GET", "/docs", completions, reference.page, "reference"),
        ),
        fallback=completions,
    )
    funnel = Funnel(router, streams.stragglers, life.stopping.is_set, base.clock, admission)
    for listener in (authenticator, base.directory, fleet):
        await listener.listen(base.bus)
    await cancelling.listen()
    await relay.listen(life.replica)
    tasks = life.background(
        keys=authenticator.run(),
        limits=limiter.run(),
        reckoning=Reckoning(limiter, Finding(stores.live_turns, stores.holds), base.bus).run(),
        relay_timer=relay.run(),
        relay_look_up=relay.look_up(),
        stream_timer=streams.run(),
        renew_locks=turns.renew_locks(),
        stored_cancels=cancelling.run(),
        events=events.run(life.stopping),
    )
    async with tasks, serve_http(funnel, settings.host, settings.port) as port:
        yield Gateway(port, funnel, relay)


def limiting(settings: GatewaySettings, life: Life, base: Foundation, fleet: Fleet) -> Limiter:
    """Put together what bounds keys and tenants."""
    return Limiter(
        base.stores.budgets,
        life.replica,
        lambda: fleet.replicas("gateway"),
        base.clock,
        burst_s=settings.limit_burst_s,
        budget_s=settings.turn_budget_s,
    )


class Desks(NamedTuple):
    """What those ask who look after keys, tenants and the cluster."""

    keys: Keys
    tenants: Tenants
    cluster: Cluster
    dead: Dead


def administering(
    settings: GatewaySettings, life: Life, base: Foundation, authenticator: Authenticator, fleet: Fleet
) -> Desks:
    """Put together what looks after keys, tenants and the cluster."""
    stores, pepper = base.stores, settings.key_pepper.get_secret_value().encode()
    administrators = Administrators(
        authenticator, max_body_bytes=settings.max_body_bytes, body_timeout_s=settings.body_timeout_s
    )
    administration = Administration(
        stores.keys, stores.tenants, stores.audit, pepper=pepper, clock=base.clock, tell=partial(tell, base.bus)
    )
    letters = NatsDeadLetters(base.bus)
    requeueing = Requeueing(stores, letters, News(base.bus), base.clock, base.directory.days)
    return Desks(
        Keys(administrators, stores.keys, administration, pepper, base.clock),
        Tenants(administrators, stores.tenants, stores.audit, administration),
        Cluster(
            administrators,
            fleet,
            base.catalog,
            stores.holds,
            letters,
            bus=base.bus,
            bus_state=base.bus_state,
            store_state=base.store_state,
            replica=life.replica,
        ),
        Dead(administrators, letters, requeueing, stores.ledger),
    )


def tell(bus: Bus, subject: str) -> None:
    """Broadcast that something changed: what makes prompt what everybody finds out anyhow may be lost."""
    with suppress(Unavailable):
        bus.publish(subject, b"")


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
