"""Who is told what happened: the tenant's feed of everything, each webhook of what it asked for.

A webhook's notice is one keyed tool call, on a pool of its own. The ledger, the egress guard and the dead letters are
those of every tool call. What fails is tried again by schedule, with growing delays, for a day; nothing of it ever
touches the turn.
"""

from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec
import structlog

from kitemesh_contracts import canonical, codec, subjects
from kitemesh_contracts.commands import CallOrder, RunCalls
from kitemesh_contracts.errors import Bug, ErrorCode, KitemeshError, Unavailable
from kitemesh_contracts.events import CallsReturned
from kitemesh_contracts.headers import job_msg_id
from kitemesh_contracts.ids import notice_id
from kitemesh_contracts.news import NewsItem
from kitemesh_contracts.topology import PRIORITIES, lane_of
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.catalog_file import CatalogHandle
from kitemesh_runtime.catalog_tools import Webhook, WebhookEvent
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.holds import Hold
from kitemesh_runtime.metrics import NOTICES
from kitemesh_runtime.news import News, about_hold, ended, held
from kitemesh_runtime.turns import TurnRecord

STEP: Final = 0
"""The step of a job that belongs to no turn: turns count theirs from 1."""
DELAYS_S: Final = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, *(7200.0,) * 12)
"""Between the tries: a little over a day in all."""

FINAL: Final = frozenset(
    {ErrorCode.TOOL_UNKNOWN, ErrorCode.TOOL_CHANGED, ErrorCode.TOOL_ARGUMENTS, ErrorCode.TOOL_BLOCKED}
)
"""What a further try would only hear again."""

_DELIVERED, _GIVEN_UP, _RETRIED = (NOTICES.labels(outcome).inc for outcome in ("delivered", "given_up", "retried"))

log: Final = structlog.get_logger()


class Notices:
    """Tells the feed and webhooks."""

    def __init__(self, bus: Bus, catalog: CatalogHandle, clock: Clock) -> None:
        self._bus: Final = bus
        self._catalog: Final = catalog
        self._clock: Final = clock
        self._news: Final = News(bus)

    def tell_refused(self, record: TurnRecord) -> None:
        """Tell the feed of the end of a turn that was accepted and never run; webhooks are not told."""
        self._news.tell(record.tenant, ended(record))

    def tell_cancelled(self, hold: Hold) -> None:
        """Tell the feed that nobody is asked any more; webhooks are not told."""
        self._news.tell(hold.tenant, about_hold("approval.cancelled", hold, self._clock.now_ms()))

    async def tell(self, what: WebhookEvent, about: Hold | TurnRecord) -> None:
        """Tell the feed, and publish a call for each webhook that wants to know; again it is the same news and call.

        Raises:
            Unavailable: The bus does not answer.

        """
        for item in _news(what, about, self._clock.now_ms()):
            self._news.tell(about.tenant, item)
        for name, webhook in self._catalog.current.webhooks.items():
            if what in webhook.events and any(fnmatchcase(about.tenant, each) for each in webhook.tenants):
                try:
                    await self._send(_order(name, webhook, what, about), about.tenant, webhook.pool)
                except Unavailable:
                    raise
                except KitemeshError as exc:
                    # A webhook never holds up a turn.
                    log.warning("notice.not_sent", webhook=name, about=about.id, code=exc.code)

    async def on_returned(self, event: CallsReturned) -> None:
        """Take how a call went; one that may yet succeed is scheduled again."""
        job = codec.decode(codec.JOB, bytes(event.carry))
        error = event.results[0].error if event.results else None
        if error is None or not isinstance(job, RunCalls):
            _DELIVERED()
            return
        if event.attempt > len(DELAYS_S) or error.code in FINAL:
            _GIVEN_UP()
            log.error("notice.given_up", notice=event.turn, attempts=event.attempt, code=error.code)
            return
        _RETRIED()
        again = msgspec.structs.replace(job, attempt=event.attempt + 1)
        await self._bus.schedule(
            subjects.timer("notice", event.turn),
            subjects.timer_due("notice", event.turn),
            codec.encode(again),
            at_s=self._clock.now_ms() / 1000 + DELAYS_S[event.attempt - 1],
            msg_id=job_msg_id(event.turn, STEP, "tool", 0, event.attempt + 1),
        )

    async def on_handed_back(self, job: RunCalls) -> None:
        """Publish a call again that an executor had no time for."""
        await self.on_due(msgspec.structs.replace(job, attempt=job.attempt + 1))

    async def on_due(self, job: RunCalls) -> None:
        """Publish a call whose time to be tried again has come."""
        webhook = self._catalog.current.webhooks.get(job.calls[0].name.removeprefix(PREFIX))
        if webhook is None:
            _GIVEN_UP()
            log.warning("notice.given_up", notice=job.turn, reason="the webhook is no longer in the catalog")
            return
        await self._send(job, job.tenant, webhook.pool)

    async def _send(self, job: RunCalls, tenant: str, pool: str) -> None:
        part = self._catalog.current.pools.tool.get(pool)
        lane = lane_of(tenant, part.lanes) if part else 0
        # The executor returns `carry` untouched: the next try is made from it.
        job = msgspec.structs.replace(job, carry=msgspec.Raw(codec.encode(msgspec.structs.replace(job, carry=_NONE))))
        await self._bus.send(
            subjects.tool_job(pool, PRIORITIES[0], lane, job.turn),
            codec.encode(job),
            msg_id=job_msg_id(job.turn, STEP, "tool", 0, job.attempt),
        )


PREFIX: Final = "webhook_"
_NONE: Final = msgspec.Raw(b"null")


def _news(what: WebhookEvent, about: Hold | TurnRecord, at_ms: int) -> tuple[NewsItem, ...]:
    if isinstance(about, TurnRecord):
        return (ended(about),)
    match what:
        case "approval.requested":
            return about_hold(what, about, at_ms), held(about)
        case "approval.decided" | "approval.expired":
            return (about_hold(what, about, at_ms),)
        case _:
            raise Bug("a hold does not end as a turn does")


def _order(name: str, webhook: Webhook, what: WebhookEvent, about: Hold | TurnRecord) -> RunCalls:
    subject, data = about.id, _turn(about) if isinstance(about, TurnRecord) else _hold(about, what)
    if isinstance(about, Hold) and what == "approval.decided":
        # A hold may be decided in parts.
        subject = f"{about.id}:{about.version}"
    call = notice_id(subject, what, name)
    content = {"id": call, "type": what, "data": data}
    arguments = canonical.canonical(codec.encode(content).decode())
    order = CallOrder(
        id=call,
        name=f"{PREFIX}{name}",
        arguments=arguments,
        sha256=canonical.sha256(arguments),
    )
    return RunCalls(
        turn=call,
        tenant=about.tenant,
        gateway="none",
        mode="durable",
        step=STEP,
        attempt=1,
        calls=(order,),
        budget_s=webhook.timeout_s,
        stored=True,
    )


def _hold(hold: Hold, what: str) -> dict[str, Any]:
    """Tell of a hold: what a person needs to find and judge it, never a secret argument.

    What is told of the request is the same whenever it is told.
    """
    requested = what == "approval.requested"
    return {
        "approval_id": hold.id,
        "execution_id": hold.turn,
        "conversation_id": hold.conversation,
        "agent": hold.agent,
        "model": hold.model,
        "status": "open" if requested else hold.status,
        "expires_at_s": round(hold.expires_at_s, 3),
        "calls": [
            {
                "tool_execution_id": call.id,
                "name": call.name,
                "sentence": call.sentence,
                "approved": None if requested or call.verdict is None else call.verdict.approved,
            }
            for call in hold.calls
        ],
    }


def _turn(record: TurnRecord) -> dict[str, Any]:
    """Tell of a turn's end; its content stays in the store."""
    return {
        "execution_id": record.id,
        "conversation_id": record.conversation,
        "status": record.status,
        "agent": record.agent,
        "model": record.model,
        "error": {"code": record.error.code.value, "message": record.error.message} if record.error else None,
        "usage": {"input_tokens": record.usage.input_tokens, "output_tokens": record.usage.output_tokens},
    }
