"""The routes of held calls: list them, show one, decide it."""

from collections.abc import Sequence
from typing import Final, cast, get_args

import msgspec
from aiohttp import web

from kitemesh_contracts.codec import encode
from kitemesh_contracts.scopes import Scope
from kitemesh_gateway import strict_json
from kitemesh_gateway.admission import Admission
from kitemesh_gateway.answers import Answer
from kitemesh_gateway.auth import Authenticator, Principal
from kitemesh_gateway.body import check_headers, read_body
from kitemesh_gateway.deciding import Deciding, approval_unknown
from kitemesh_gateway.dialects.base import JSON
from kitemesh_gateway.dialects.native_answers import ApprovalOut, ApprovalPage
from kitemesh_gateway.dialects.native_bodies import DecisionIn, parse_decide
from kitemesh_gateway.dialects.native_rendering import approval_out, hold_status
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.paging import PAGE_MAX, READS_MAX, cursor_of, read_query
from kitemesh_runtime.audit import Audit, AuditRow
from kitemesh_runtime.catalog_file import CatalogHandle
from kitemesh_runtime.holds import Hold, Holds, HoldStatus

STATUSES: Final = get_args(HoldStatus)


class Approvals:
    """Answers what concerns holds.

    Args:
        max_body_bytes: Largest body.
        body_timeout_s: How long a body may take.

    """

    def __init__(
        self,
        authenticator: Authenticator,
        admission: Admission,
        holds: Holds,
        audit: Audit,
        deciding: Deciding,
        *,
        catalog: CatalogHandle,
        max_body_bytes: int,
        body_timeout_s: float,
    ) -> None:
        self._authenticator: Final = authenticator
        self._admission: Final = admission
        self._holds: Final = holds
        self._audit: Final = audit
        self._deciding: Final = deciding
        self._catalog: Final = catalog
        self._max_body_bytes: Final = max_body_bytes
        self._body_timeout_s: Final = body_timeout_s

    async def all(self, exchange: Exchange) -> web.Response:
        """List those of the tenant that the key may see, newest first."""
        principal = await self._identify(exchange)
        principal.require(Scope.APPROVE)
        asked = read_query(exchange, STATUSES)
        now_s = _now_s(exchange)
        status = cast("HoldStatus | None", asked.status)
        found, after = await self._find(principal, status, asked.before, asked.limit, now_s)
        shown = tuple(self._shown(hold, now_s) for hold in found)
        page = ApprovalPage(data=shown, next_cursor=cursor_of(after))
        return exchange.respond(encode(page), JSON)

    async def _find(
        self, principal: Principal, status: HoldStatus | None, before: str | None, limit: int, now_s: float
    ) -> tuple[list[Hold], str | None]:
        """Return holds of that status for the key, and the id behind which there are more; `None` at the end.

        What has run out and nobody has noted so far is still stored as open, and shown as expired.
        """
        stored = None if status == "expired" else status
        is_sparse = status == "expired" or principal.models is not None
        step = (PAGE_MAX if is_sparse else limit) + 1
        fit: list[Hold] = []
        for _ in range(READS_MAX):
            found = await self._holds.page(principal.tenant, status=stored, before=before, limit=step)
            fit += (
                hold for hold in found if status in (None, hold_status(hold, now_s)) and principal.allows(hold.model)
            )
            if len(fit) > limit:
                return fit[:limit], fit[limit - 1].id
            if len(found) < step:
                return fit, None
            before = found[-1].id
        return fit, before

    async def one(self, exchange: Exchange) -> web.Response:
        """Show one, with what was done to it.

        Raises:
            NotFound: There is none, or not for this key.

        """
        principal = await self._identify(exchange)
        hold = await self._holds.get(principal.tenant, exchange.tail)
        if hold is None or not principal.allows(hold.model):
            raise approval_unknown()
        if hold.scope not in principal.scopes:
            principal.require(Scope.APPROVE)
        audit = await self._audit.about(principal.tenant, hold.id)
        _name(exchange, hold)
        return exchange.respond(encode(self._shown(hold, _now_s(exchange), audit)), JSON)

    async def decide(self, exchange: Exchange) -> web.Response:
        """Decide some of its calls, or all, and show it as it is then."""
        check_headers(exchange.request, self._max_body_bytes)
        principal = await self._identify(exchange)
        # It has a turn go on, as any other way to answer a hold does.
        await self._admission.admit(exchange, principal)
        body = await read_body(exchange.request, self._max_body_bytes, self._body_timeout_s)
        decisions = parse_decide(strict_json.decode(body)).decisions
        hold = await self._deciding.decide(
            principal,
            exchange.tail,
            {decision.tool_execution_id: _answer(decision) for decision in decisions},
            origin=exchange.request.remote or "",
        )
        _name(exchange, hold)
        return exchange.respond(encode(self._shown(hold, _now_s(exchange))), JSON)

    def _shown(self, hold: Hold, now_s: float, audit: Sequence[AuditRow] | None = None) -> ApprovalOut:
        return approval_out(hold, now_s=now_s, tools=self._catalog.current.tools, audit=audit)

    async def _identify(self, exchange: Exchange) -> Principal:
        authorization = exchange.request.headers.getall("Authorization", ())
        exchange.principal = principal = await self._authenticator.identify(authorization, exchange.peer)
        return principal


def _answer(decision: DecisionIn) -> Answer:
    arguments = None if decision.arguments is None else msgspec.json.encode(decision.arguments).decode()
    return Answer(decision.approved, decision.reason or "", arguments)


def _now_s(exchange: Exchange) -> float:
    return exchange.clock.now_ms() / 1000


def _name(exchange: Exchange, hold: Hold) -> None:
    exchange.turn = hold.turn
    exchange.conversation = hold.conversation or ""
