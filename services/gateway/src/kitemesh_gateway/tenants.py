"""The routes of tenants and of the audit: what each tenant may do, and who changed what.

An operator says what holds for whom; who has the scope `admin` sees what is said of its own tenant.
"""

from http import HTTPStatus
from typing import Final

from aiohttp import web

from kitemesh_contracts.codec import encode
from kitemesh_contracts.errors import ErrorCode, NotFound
from kitemesh_contracts.scopes import Scope
from kitemesh_gateway.administrators import TENANT, Administrators, actor_of, meant_tenant
from kitemesh_gateway.dialects.base import JSON
from kitemesh_gateway.dialects.tenants_answers import (
    DeedPage,
    TenantPage,
    TenantRemoved,
    deed_name,
    deed_out,
    row_name,
    tenant_out,
)
from kitemesh_gateway.dialects.tenants_bodies import parse_tenant
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.paging import cursor_of, read_query
from kitemesh_runtime.administration import Administration, tenant_of, token_of
from kitemesh_runtime.audit import Audit
from kitemesh_runtime.tenancy import DEFAULT_TENANT, TenantRecord, merge
from kitemesh_runtime.tenancy import Tenants as TenantStore

SUBJECT: Final = "subject"


class Tenants:
    """Answers what concerns tenants.

    Args:
        administrators: Say who asks.
        tenants: The store.
        audit: What was done.
        administration: Changes tenants.

    """

    def __init__(
        self, administrators: Administrators, tenants: TenantStore, audit: Audit, administration: Administration
    ) -> None:
        self._administrators: Final = administrators
        self._tenants: Final = tenants
        self._audit: Final = audit
        self._administration: Final = administration

    async def all(self, exchange: Exchange) -> web.Response:
        """List tenants of which something is said."""
        await self._administrators.identify(exchange, Scope.OPERATOR)
        asked = read_query(exchange, ())
        found = await self._tenants.page(after=tenant_of(asked.before or ""), limit=asked.limit + 1)
        shown = found[: asked.limit]
        page = TenantPage(
            data=tuple(tenant_out(record) for record in shown),
            next_cursor=cursor_of(token_of(shown[-1].id) if len(found) > len(shown) else None),
        )
        return exchange.respond(encode(page), JSON)

    async def one(self, exchange: Exchange) -> web.Response:
        """Show what is said of one, and what holds for it."""
        principal = await self._administrators.identify(exchange)
        tenant = tenant_of(exchange.tail)
        if tenant != principal.tenant and Scope.OPERATOR not in principal.scopes:
            raise _unknown()
        record = await self._tenants.get(tenant)
        if record is None:
            if tenant != principal.tenant:
                raise _unknown()
            record = TenantRecord(id=tenant)
        default = await self._tenants.get(DEFAULT_TENANT)
        effective = record if default is None else merge(record, default)
        return exchange.respond(encode(tenant_out(record, effective)), JSON)

    async def put(self, exchange: Exchange) -> web.Response:
        """Say something of a tenant, in the place of all that was said."""
        principal, body = await self._administrators.read(exchange, Scope.OPERATOR)
        tenant = tenant_of(exchange.tail)
        record = parse_tenant(tenant, body)
        is_new = await self._tenants.get(tenant) is None
        stored = await self._administration.put_tenant(actor_of(exchange, principal), record)
        status = HTTPStatus.CREATED if is_new else HTTPStatus.OK
        return exchange.respond(encode(tenant_out(stored)), JSON, status=status)

    async def remove(self, exchange: Exchange) -> web.Response:
        """Take back all that is said of a tenant; its keys and conversations are not touched."""
        principal = await self._administrators.identify(exchange, Scope.OPERATOR)
        if not await self._administration.remove_tenant(actor_of(exchange, principal), tenant_of(exchange.tail)):
            raise _unknown()
        return exchange.respond(encode(TenantRemoved(id=exchange.tail, deleted=True)), JSON)

    async def audit(self, exchange: Exchange) -> web.Response:
        """List what was done in a tenant."""
        principal = await self._administrators.identify(exchange)
        asked = read_query(exchange, (), (SUBJECT, TENANT))
        tenant = meant_tenant(principal, asked.ids.get(TENANT), is_default_meant=True)
        subject = asked.ids.get(SUBJECT)
        found = await self._audit.page(
            tenant,
            subject=None if subject is None else tenant_of(subject),
            before=None if asked.before is None else row_name(asked.before),
            limit=asked.limit + 1,
        )
        shown = found[: asked.limit]
        page = DeedPage(
            data=tuple(deed_out(row) for row in shown),
            next_cursor=cursor_of(deed_name(shown[-1].id) if len(found) > len(shown) else None),
        )
        return exchange.respond(encode(page), JSON)


def _unknown() -> NotFound:
    return NotFound(ErrorCode.TENANT_UNKNOWN, "There is nothing said of such a tenant")
