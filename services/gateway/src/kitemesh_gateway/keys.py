"""The routes of API keys: make one, list them, show one, change it, rotate it, revoke it.

All need the scope `admin`, for one's own tenant, or `operator`, for any.
"""

from http import HTTPStatus
from typing import Final

from aiohttp import web
from msgspec import UNSET

from kitemesh_contracts.codec import encode
from kitemesh_contracts.errors import ErrorCode, KitemeshError, NotFound
from kitemesh_gateway.administrators import TENANT, Administrators, actor_of, check_gift, meant_tenant
from kitemesh_gateway.auth import Principal
from kitemesh_gateway.dialects.base import JSON
from kitemesh_gateway.dialects.keys_answers import KeyPage, key_made, key_out, key_rotated
from kitemesh_gateway.dialects.keys_bodies import changes_of, parse_key, parse_patch, parse_rotation
from kitemesh_gateway.dialects.limits_bodies import limits_of
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.paging import cursor_of, read_query
from kitemesh_gateway.principals import nameable
from kitemesh_runtime import issuing
from kitemesh_runtime.administration import Administration
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.keys import KeyRecord
from kitemesh_runtime.keys import Keys as KeyStore

_SECRET: Final = {"Cache-Control": "no-store"}


class Keys:
    """Answers what concerns API keys.

    Args:
        administrators: Say who asks.
        keys: The store.
        administration: Changes keys.
        pepper: Under which keys are digested.
        clock: Time.

    """

    def __init__(
        self,
        administrators: Administrators,
        keys: KeyStore,
        administration: Administration,
        pepper: bytes,
        clock: Clock,
    ) -> None:
        self._administrators: Final = administrators
        self._keys: Final = keys
        self._administration: Final = administration
        self._pepper: Final = pepper
        self._clock: Final = clock

    async def all(self, exchange: Exchange) -> web.Response:
        """List keys."""
        principal = await self._administrators.identify(exchange)
        asked = read_query(exchange, (), (TENANT,))
        tenant = meant_tenant(principal, asked.ids.get(TENANT))
        found = await self._keys.page(tenant, before=asked.before, limit=asked.limit + 1)
        shown = found[: asked.limit]
        page = KeyPage(
            data=tuple(key_out(record, self._now_s()) for record in shown),
            next_cursor=cursor_of(shown[-1].id if len(found) > len(shown) else None),
        )
        return exchange.respond(encode(page), JSON)

    async def create(self, exchange: Exchange) -> web.Response:
        """Make a key and tell its text, once."""
        principal, body = await self._administrators.read(exchange)
        tenant = meant_tenant(principal, _named(exchange))
        asked = parse_key(body)
        own = await self._own(principal)
        check_gift(principal, own, scopes=asked.scopes, models=asked.models, agent=asked.default_agent)
        text, record = issuing.make(
            self._pepper,
            tenant=tenant,
            scopes=tuple(dict.fromkeys(asked.scopes)),
            name=asked.name,
            default_agent=asked.default_agent,
            models=asked.models,
            lifetime_s=asked.expires_in_s,
            limits=limits_of(asked.limits),
            priority=asked.priority,
            created_by=principal.key,
            clock=self._clock,
        )
        await self._administration.create_key(actor_of(exchange, principal), record)
        answer = encode(key_made(record, text, self._now_s()))
        return exchange.respond(answer, JSON, status=HTTPStatus.CREATED, headers=_SECRET)

    async def one(self, exchange: Exchange) -> web.Response:
        """Show one."""
        principal = await self._administrators.identify(exchange)
        return self._shown(exchange, await self._find(exchange, principal))

    async def change(self, exchange: Exchange) -> web.Response:
        """Change one."""
        principal, body = await self._administrators.read(exchange)
        record = await self._find(exchange, principal)
        asked = parse_patch(body)
        changes = changes_of(asked, self._now_s())
        kept = record.scopes if changes.scopes is UNSET else changes.scopes
        gained = [scope for scope in kept if scope not in record.scopes]
        if gained:
            message = f"A key never gets another scope than it was made with, such as {gained[0]}; make a new one"
            raise KitemeshError(ErrorCode.PERMISSION_DENIED, message)
        check_gift(
            principal,
            await self._own(principal),
            scopes=kept,
            models=() if changes.models is UNSET else changes.models,
            agent=None if changes.default_agent is UNSET else changes.default_agent,
        )
        changed = await self._administration.change_key(actor_of(exchange, principal), record, changes)
        if changed is None:
            raise _unknown()
        return self._shown(exchange, changed)

    async def rotate(self, exchange: Exchange) -> web.Response:
        """Make a key that takes its place, and tell its text, once."""
        principal, body = await self._administrators.read(exchange)
        record = await self._find(exchange, principal)
        asked = parse_rotation(body)
        # Whoever has the new text may do all that the key may.
        own = await self._own(principal)
        check_gift(principal, own, scopes=record.scopes, models=record.models, agent=record.default_agent)
        text, made, replaced = await self._administration.rotate_key(
            actor_of(exchange, principal), record, grace_s=asked.grace_s
        )
        answer = encode(key_rotated(made, text, replaced, self._now_s()))
        return exchange.respond(answer, JSON, status=HTTPStatus.CREATED, headers=_SECRET)

    async def revoke(self, exchange: Exchange) -> web.Response:
        """Revoke one for good; again is the same."""
        principal = await self._administrators.identify(exchange)
        record = await self._find(exchange, principal)
        revoked = await self._administration.revoke_key(actor_of(exchange, principal), record)
        return self._shown(exchange, revoked or record)

    async def _find(self, exchange: Exchange, principal: Principal) -> KeyRecord:
        record = await self._keys.get(meant_tenant(principal, _named(exchange)), exchange.tail)
        if record is None:
            raise _unknown()
        return record

    async def _own(self, principal: Principal) -> frozenset[str] | None:
        """Return what the asking key may name by itself; `None` is everything."""
        if not principal.key:
            return None
        record = await self._keys.get(principal.tenant, principal.key)
        return frozenset() if record is None else nameable(record.models, record.default_agent)

    def _shown(self, exchange: Exchange, record: KeyRecord) -> web.Response:
        return exchange.respond(encode(key_out(record, self._now_s())), JSON)

    def _now_s(self) -> float:
        return self._clock.now_ms() / 1000


def _named(exchange: Exchange) -> str | None:
    return read_query(exchange, (), (TENANT,)).ids.get(TENANT)


def _unknown() -> NotFound:
    return NotFound(ErrorCode.KEY_UNKNOWN, "There is no such key")
