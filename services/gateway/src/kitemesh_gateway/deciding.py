"""The use case "decide held calls": whoever asks, one conditional write decides. It knows no HTTP.

A decision is valid once it is stored. The message that has it applied only makes that prompt: when it is lost, the
sweeper does it within seconds.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple

import structlog

from kitemesh_contracts import subjects
from kitemesh_contracts.codec import encode
from kitemesh_contracts.commands import ApplyHold
from kitemesh_contracts.errors import Conflict, ErrorCode, KitemeshError, NotFound
from kitemesh_contracts.headers import hold_msg_id
from kitemesh_contracts.ids import is_id
from kitemesh_contracts.scopes import Scope
from kitemesh_gateway.answers import Answer, verdicts_of
from kitemesh_gateway.auth import Principal
from kitemesh_gateway.instants import iso
from kitemesh_runtime.audit import Audit
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.catalog_file import CatalogHandle
from kitemesh_runtime.hold_audit import audit_rows
from kitemesh_runtime.holds import Hold, Holds, Verdict

__all__ = ["Answer", "Audience", "Deciding", "approval_gone", "approval_unknown"]

PUBLISH_S: Final = 2.0

log: Final = structlog.get_logger()


class Audience(NamedTuple):
    """Who waits for what comes after the decision.

    Attributes:
        gateway: The replica that relays it.
        stream: It wants deltas.

    """

    gateway: str
    stream: bool


def approval_unknown() -> NotFound:
    """Return the one refusal of an approval that does not exist, is another tenant's, or not for this key."""
    return NotFound(ErrorCode.APPROVAL_UNKNOWN, "There is no such approval")


def approval_gone(hold: Hold) -> KitemeshError:
    """Return the refusal of an approval that cannot be decided any more."""
    if hold.status == "cancelled":
        why = f": {hold.reason}" if hold.reason else ""
        return KitemeshError(ErrorCode.APPROVAL_GONE, f"This approval was cancelled{why}")
    return KitemeshError(ErrorCode.APPROVAL_GONE, f"This approval expired at {iso(hold.expires_at_s)}")


class Deciding:
    """Decides held calls, and has the turn go on.

    Args:
        holds: Where they are held.
        audit: Where each decision is noted.
        bus: Carries the message that has a decision applied.
        catalog: The tools and the rules as they are now.

    """

    def __init__(self, holds: Holds, audit: Audit, bus: Bus, catalog: CatalogHandle) -> None:
        self._holds: Final = holds
        self._audit: Final = audit
        self._bus: Final = bus
        self._catalog: Final = catalog
        self._under_way: set[asyncio.Task[Hold]] = set()

    async def decide(
        self,
        principal: Principal,
        hold_id: str,
        answers: Mapping[str, Answer],
        *,
        origin: str,
        texts: Sequence[str] = (),
        model: str | None = None,
        audience: Audience | None = None,
        attach: Callable[[Hold], Awaitable[None]] | None = None,
    ) -> Hold:
        """Decide calls of a hold and return it as it is then. The same decision again is the same.

        Args:
            principal: Who decides.
            hold_id: The approval.
            answers: By tool execution id.
            origin: The address that the decision comes from.
            texts: User messages to append behind the results; kept when the write wins.
            model: What the caller takes the hold's model to be; `None` does not ask.
            audience: Who waits for the continuation.
            attach: Awaited with the valid request's hold before anything is decided, so that nothing is missed.

        Raises:
            NotFound: There is no such hold of the tenant, or not for this principal (`approval.unknown`).
            Mistakes: With everything that is wrong with the answers.
            Conflict: The calls were decided otherwise (`approval.decided`), or the tool whose arguments were edited is
                not the one that was held (`tool.changed`).
            KitemeshError: The scope is missing (`permission.denied`); it expired or was cancelled (`approval.gone`).

        """
        tenant = principal.tenant
        hold = await self._holds.get(tenant, hold_id) if is_id(hold_id) else None
        if hold is None or not principal.allows(hold.model):
            raise approval_unknown()
        principal.require(Scope(hold.scope))
        verdicts = verdicts_of(
            hold,
            answers,
            by=principal.key,
            origin=origin,
            model=model,
            catalog=self._catalog.current,
        )
        if hold.status in ("expired", "cancelled"):
            raise approval_gone(hold)
        if attach is not None:
            await attach(hold)
        return await self._to_its_end(self._commit(hold, verdicts, tuple(texts), audience))

    async def _to_its_end(self, work: Coroutine[Any, Any, Hold]) -> Hold:
        """Await work that goes on when the client does not wait: what is stored is to be noted and applied at once."""
        task = asyncio.create_task(work, name="decision")
        self._under_way.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    def _finished(self, task: asyncio.Task[Hold]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            # Seen here, so that a refusal nobody waits for any more is not reported as lost.
            task.exception()

    async def _commit(
        self, hold: Hold, verdicts: dict[str, Verdict], texts: tuple[str, ...], audience: Audience | None
    ) -> Hold:
        left = verdicts
        while True:
            won, now = await self._holds.decide(hold.tenant, hold.id, left, texts=texts)
            if now is None:
                raise approval_unknown()
            if won:
                await asyncio.gather(self._note(now), self._have_applied(now, audience))
                return now
            if now.status in ("expired", "cancelled"):
                raise approval_gone(now)
            decided = {call.id: call.verdict for call in now.calls if call.verdict is not None}
            if any(call in decided and not _same(decided[call], verdict) for call, verdict in verdicts.items()):
                raise _decided(now, verdicts)
            undecided = {call: verdict for call, verdict in verdicts.items() if call not in decided}
            if not undecided:
                if now.applied < now.version:
                    await self._have_applied(now, audience, again=True)
                return now
            if len(undecided) == len(left):
                # Nobody decided them and yet they cannot be: the time is up, and nobody has noted it so far.
                raise approval_gone(now)
            left = undecided

    async def _note(self, hold: Hold) -> None:
        rows = [row for row in audit_rows(hold) if row.what == "approval.decided"]
        try:
            await asyncio.gather(*(self._audit.append(hold.tenant, row) for row in rows))
        except KitemeshError as exc:
            # The decision stands, and whoever applies it notes it, too.
            log.warning("audit.not_noted", hold=hold.id, version=hold.version, code=exc.code)

    async def _have_applied(self, hold: Hold, audience: Audience | None, *, again: bool = False) -> None:
        order = ApplyHold(turn=hold.turn, tenant=hold.tenant, hold=hold.id)
        msg_id = hold_msg_id(hold.id, hold.version)
        if audience is not None:
            order = ApplyHold(
                turn=hold.turn, tenant=hold.tenant, hold=hold.id, gateway=audience.gateway, stream=audience.stream
            )
            if again:
                # Under the first one's id it would be swallowed, and with it the news of who waits.
                msg_id = f"{msg_id}:{audience.gateway}"
        try:
            await self._bus.send(subjects.control_decide(hold.turn), encode(order), msg_id=msg_id, timeout_s=PUBLISH_S)
        except KitemeshError as exc:
            log.warning("decision.not_published", hold=hold.id, version=hold.version, code=exc.code)


def _same(verdict: Verdict | None, other: Verdict) -> bool:
    return verdict is not None and (verdict.approved, verdict.arguments) == (other.approved, other.arguments)


def _decided(hold: Hold, asked: Mapping[str, Verdict]) -> Conflict:
    parts = []
    for call in hold.calls:
        verdict = call.verdict
        if verdict is not None and call.id in asked:
            edit = " with edited arguments" if verdict.arguments is not None and verdict.approved else ""
            what = "approved" if verdict.approved else "denied"
            who = f"key {verdict.by}" if verdict.by else "a request without a key"
            parts.append(f"{call.id} was {what}{edit} by {who} at {iso(verdict.at_s)}")
    return Conflict(ErrorCode.APPROVAL_DECIDED, f"This approval was decided already: {'; '.join(parts)}")
