"""Who asks: from an `Authorization` header to a principal, or one and the same refusal.

Keys are looked up by digest. What was found is remembered for less than a revocation may take, so a missed broadcast
costs seconds; what was not found is remembered apart, so that guessing cannot push known keys out.
"""

import asyncio
import hmac
from collections.abc import Collection, Sequence
from typing import Final, TypeVar

import structlog
from msgspec import Struct

from kitemesh_contracts import subjects
from kitemesh_contracts.errors import ErrorCode, KitemeshError, Unavailable
from kitemesh_contracts.scopes import Scope
from kitemesh_runtime import keyring
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.stores import KeyRecord, Keys

KNOWN_S: Final = 4.0
"""A revoked key is refused everywhere within 5 s even where the broadcast did not arrive."""
UNKNOWN_S: Final = 2.0
CACHE_MAX: Final = 10_000
LOOKUP_S: Final = 2.5

T = TypeVar("T")

log: Final = structlog.get_logger()


def may_name(models: Collection[str] | None, model: str) -> bool:
    """Tell whether who may name these models, `None` being all, may name that one."""
    return models is None or model in models or model.lower() in models


class Principal(Struct, frozen=True, kw_only=True):
    """On whose behalf a request runs.

    Attributes:
        key: The key's id; empty for the anonymous principal.
        default_agent: Answers where a dialect's request names none.
        models: What it may name as `model`; `None` allows all.

    """

    tenant: str
    key: str
    scopes: frozenset[str]
    default_agent: str | None = None
    models: frozenset[str] | None = None

    def allows(self, model: str) -> bool:
        """Tell whether it may name that model."""
        return may_name(self.models, model)

    def require(self, scope: Scope) -> None:
        """Refuse what the key was not given.

        Raises:
            KitemeshError: It lacks the scope (`permission.denied`).

        """
        if scope not in self.scopes:
            raise KitemeshError(ErrorCode.PERMISSION_DENIED, f"This key does not have the scope {scope}")


class _Known(Struct, frozen=True):
    principal: Principal
    until_s: float
    expires_at_s: float | None


class Authenticator:
    """Turns credentials into principals.

    Args:
        keys: The store.
        pepper: Under which keys are digested.
        clock: Time.
        anonymous: Who asks when a request has no credential; `None` refuses it.
        store_state: Whether the store is known to be down.

    """

    def __init__(
        self, keys: Keys, pepper: bytes, clock: Clock, anonymous: Principal | None, store_state: Dependency
    ) -> None:
        self._keys: Final = keys
        self._store_state: Final = store_state
        self._pepper: Final = pepper
        self._clock: Final = clock
        self._anonymous: Final = anonymous
        self._known: dict[str, _Known] = {}
        self._unknown: dict[str, float] = {}
        self._lookups: dict[str, asyncio.Task[Principal | None]] = {}
        self._generation = 0

    async def listen(self, bus: Bus) -> None:
        """Follow the broadcast of changed keys."""
        await bus.subscribe(subjects.KEY_ALL, self._on_change)

    async def identify(self, authorization: Sequence[str]) -> Principal:
        """Say who asks.

        Args:
            authorization: Every `Authorization` header of the request.

        Raises:
            KitemeshError: Nobody whom we know; the same for every reason (`credential.invalid`).
            Unavailable: The key is not known here and the store does not answer.

        """
        if not authorization:
            if self._anonymous is not None:
                return self._anonymous
            raise _refused()
        text = _key_text(authorization)
        digest = keyring.digest(text, self._pepper)
        known = self._known.get(digest)
        now = self._clock.monotonic()
        if known is not None and now < known.until_s:
            principal: Principal | None = None if self._expired(known.expires_at_s) else known.principal
        elif keyring.parse(text) is None or self._unknown.get(digest, now) > now:
            principal = None
        else:
            principal = await self._look_up(digest)
        if principal is None:
            raise _refused()
        return principal

    async def _look_up(self, digest: str) -> Principal | None:
        """Ask the store once, however many requests wait for the same key."""
        lookup = self._lookups.get(digest)
        if lookup is None:
            lookup = asyncio.create_task(self._ask(digest), name="key-lookup")
            self._lookups[digest] = lookup
            lookup.add_done_callback(lambda done: self._forget(digest, done))
        # A client that goes away must not take the others' lookup with it.
        return await asyncio.shield(lookup)

    def _forget(self, digest: str, lookup: asyncio.Task[Principal | None]) -> None:
        self._lookups.pop(digest, None)
        if not lookup.cancelled():
            # Seen here, so that a failure nobody waits for any more is not reported as lost.
            lookup.exception()

    async def _ask(self, digest: str) -> Principal | None:
        if not self._store_state.is_up:
            raise _store_down()
        generation = self._generation
        asked_s = self._clock.monotonic()
        try:
            async with asyncio.timeout(LOOKUP_S):
                record = await self._keys.find(digest)
        except TimeoutError as exc:
            raise _store_down() from exc
        principal = self._admit(record, digest)
        if generation != self._generation:
            # The answer may be older than the change that was just announced.
            return principal
        if principal is None or record is None:
            _remember(self._unknown, digest, asked_s + UNKNOWN_S)
        else:
            _remember(self._known, digest, _Known(principal, asked_s + KNOWN_S, record.expires_at_s))
        return principal

    def _admit(self, record: KeyRecord | None, digest: str) -> Principal | None:
        if record is None or not hmac.compare_digest(record.digest.encode(), digest.encode()):
            return None
        if record.revoked_at_s is not None or self._expired(record.expires_at_s):
            return None
        return Principal(
            tenant=record.tenant,
            key=record.id,
            scopes=frozenset(record.scopes),
            default_agent=record.default_agent,
            models=_nameable(record),
        )

    def _expired(self, expires_at_s: float | None) -> bool:
        return expires_at_s is not None and self._clock.now_ms() >= expires_at_s * 1000

    def _on_change(self, subject: str, _: bytes) -> None:
        key = subjects.last_token(subject)
        self._generation += 1
        self._unknown.clear()
        for digest in [digest for digest, known in self._known.items() if known.principal.key == key]:
            del self._known[digest]
        log.info("key.forgotten", key=key)


def _nameable(record: KeyRecord) -> frozenset[str] | None:
    """Return what a key may name, its own default agent included: it answers, and its turns are to be seen."""
    if record.models is None:
        return None
    own = () if record.default_agent is None else (f"agent:{record.default_agent}",)
    return frozenset((*record.models, *own))


def _remember(cache: dict[str, T], digest: str, value: T) -> None:
    if len(cache) >= CACHE_MAX:
        del cache[next(iter(cache))]
    cache[digest] = value


def _key_text(authorization: Sequence[str]) -> str:
    if len(authorization) == 1:
        scheme, _, text = authorization[0].partition(" ")
        if scheme.lower() == "bearer" and text.isascii():
            return text.strip(" ")
    raise _refused()


def _refused() -> KitemeshError:
    message = "The credential is missing, malformed, unknown, revoked or expired; send `Authorization: Bearer km_…`"
    return KitemeshError(ErrorCode.CREDENTIAL_INVALID, message)


def _store_down() -> Unavailable:
    return Unavailable(ErrorCode.STORE_DOWN, "The store does not answer; try again", retry_after_s=1)
