"""Tells a tenant's feed what happened. Nothing waits for it, and a feed that cannot be told holds nothing up.

What was told but not acknowledged is sent again, so news may come twice, or out of order; each has an id of its own.
"""

from typing import Final, Literal

import structlog

from kitemesh_contracts import subjects
from kitemesh_contracts.codec import encode
from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.errors import KitemeshError
from kitemesh_contracts.news import NewsItem
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.holds import Hold
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.metrics import NEWS_LOST
from kitemesh_runtime.turns import TurnRecord

HoldNews = Literal["approval.requested", "approval.decided", "approval.expired", "approval.cancelled"]

log: Final = structlog.get_logger()


class News:
    """Publishes news."""

    def __init__(self, bus: Bus) -> None:
        self._bus: Final = bus

    def tell(self, tenant: str, item: NewsItem) -> None:
        """Publish one; again it is the same one."""
        about = item.execution_id if item.approval_id is None or item.type == "turn.held" else item.approval_id
        try:
            self._bus.post(subjects.feed(tenant, item.type, about), encode(item))
        except KitemeshError as exc:
            NEWS_LOST.inc()
            log.warning("news.lost", kind=item.type, about=about, code=exc.code)


def accepted(start: StartTurn) -> NewsItem:
    """Say that a turn was accepted."""
    return NewsItem(
        type="turn.accepted",
        id=f"turn.accepted:{start.turn}",
        execution_id=start.turn,
        status="queued",
        mode=start.mode,
        model=start.route.requested,
        at_ms=start.accepted_at_ms,
        conversation_id=start.conversation,
    )


def requeued(turn: LiveTurn, at_ms: int) -> NewsItem:
    """Say that a turn that was given up goes on: to its clients it is as if it was accepted once more."""
    return NewsItem(
        type="turn.accepted",
        id=f"turn.accepted:{turn.id}:{turn.version}",
        execution_id=turn.id,
        status="queued",
        mode=turn.mode,
        model=turn.model,
        at_ms=at_ms,
        conversation_id=turn.conversation,
    )


def ended(record: TurnRecord) -> NewsItem:
    """Say that a turn has ended."""
    return NewsItem(
        type="turn.ended",
        id=f"turn.ended:{record.id}",
        execution_id=record.id,
        status=record.status,
        mode=record.mode,
        model=record.model,
        at_ms=record.ended_at_ms,
        conversation_id=record.conversation,
    )


def held(hold: Hold) -> NewsItem:
    """Say that a turn waits for a person."""
    return NewsItem(
        type="turn.held",
        id=f"turn.held:{hold.id}",
        execution_id=hold.turn,
        status="held",
        mode="durable",
        model=hold.model,
        at_ms=round(hold.created_at_s * 1000),
        conversation_id=hold.conversation,
        approval_id=hold.id,
    )


def about_hold(what: HoldNews, hold: Hold, at_ms: int) -> NewsItem:
    """Say what became of a hold; it may be decided in parts.

    Args:
        what: It was asked for, answered, or ended.
        hold: As it was stored then; what is told of the request is the same whenever it is told.
        at_ms: When, but for the request, whose time the store knows.

    """
    requested = what == "approval.requested"
    return NewsItem(
        type=what,
        id=f"{what}:{hold.id}:{hold.version}" if what == "approval.decided" else f"{what}:{hold.id}",
        execution_id=hold.turn,
        status="open" if requested else hold.status,
        mode="durable",
        model=hold.model,
        at_ms=round(hold.created_at_s * 1000) if requested else at_ms,
        conversation_id=hold.conversation,
        approval_id=hold.id,
    )
