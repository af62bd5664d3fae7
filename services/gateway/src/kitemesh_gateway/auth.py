"""Who asks: from an `Authorization` header to a principal, or one and the same refusal.

Keys are looked up by digest and remembered. One question to the store every 1.5 s finds those that changed, however
many are known; what is remembered counts for as long as such a question was answered, so a missed broadcast costs
seconds. What was not found is remembered apart, so that guessing cannot push known keys out.
"""

import asyncio
import hmac
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from msgspec.structs import replace

from kitemesh_contracts import subjects
from kitemesh_contracts.errors import ErrorCode, KitemeshError, Unavailable
from kitemesh_gateway.address_limit import AddressLimit, from_nowhere
from kitemesh_gateway.known_keys import Known, KnownKeys
from kitemesh_gateway.peers import Peer
from kitemesh_gateway.principals import Principal, may_name, nobody, principal_of
from kitemesh_runtime import keyring
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.directory import Directory
from kitemesh_runtime.keys import KeyRecord, Keys
from kitemesh_runtime.metrics import KEY_LOOKUPS

__all__ = ["Authenticator", "Principal", "may_name"]

POLL_S: Final = 1.5
KNOWN_S: Final = 4.0
"""A revoked key is refused everywhere within 5 s even where the broadcast did not arrive."""
UNKNOWN_S: Final = 2.0
KNOWN_MAX: Final = 200_000
UNKNOWN_MAX: Final = 10_000
LOOKUP_S: Final = 2.5
_LOOKUPS: Final = {outcome: KEY_LOOKUPS.labels(outcome).inc for outcome in ("known", "unknown", "failed")}

log: Final = structlog.get_logger()


class Authenticator:
    """Turns credentials into principals.

    Args:
        keys: The store.
        directory: What is said of tenants.
        pepper: Under which keys are digested.
        clock: Time.
        anonymous: Who asks when a request has no credential; `None` refuses it.
        store_state: Whether the store is known to be down.
        addresses: Refuses those that guess.

    """

    def __init__(
        self,
        keys: Keys,
        directory: Directory,
        pepper: bytes,
        clock: Clock,
        *,
        anonymous: Principal | None,
        store_state: Dependency,
        addresses: AddressLimit,
    ) -> None:
        self._keys: Final = keys
        self._directory: Final = directory
        self._store_state: Final = store_state
        self._addresses: Final = addresses
        self._pepper: Final = pepper
        self._clock: Final = clock
        self._anonymous: Final = anonymous
        self._nobody = anonymous
        self._nobody_version = -1
        self._known = KnownKeys(KNOWN_MAX)
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._lookups: dict[str, asyncio.Task[Principal | None]] = {}
        self._generation = 0
        self._mark: float | None = None
        self._confirmed_s = float("-inf")

    async def listen(self, bus: Bus) -> None:
        """Follow the broadcast of changed keys."""
        await bus.subscribe(subjects.KEY_ALL, self._on_change)

    async def run(self) -> None:
        """Keep up with keys that change, for ever."""
        while True:
            await self.confirm()
            await asyncio.sleep(POLL_S)

    async def confirm(self) -> None:
        """Ask the store which keys changed, so that the others can be trusted for longer."""
        began_s = self._clock.monotonic()
        try:
            async with asyncio.timeout(LOOKUP_S):
                changes = await self._keys.changes(self._mark)
        except (KitemeshError, TimeoutError) as exc:
            log.debug("keys.not_confirmed", reason=type(exc).__name__)
            return
        for key in changes.changed:
            self._known.drop(key)
        if self._mark is not None:
            self._confirmed_s = began_s
        # What changed before the first mark was not asked for, so that the first question confirms nothing.
        self._mark = changes.mark

    def forget(self, key: str) -> None:
        """Have the key of that id be looked up when it is used next, because it has changed."""
        self._generation += 1
        self._unknown.clear()
        self._known.drop(key)
        log.info("key.forgotten", key=key)

    async def identify(self, authorization: Sequence[str], peer: Callable[[], Peer] = from_nowhere) -> Principal:
        """Say who asks.

        Args:
            authorization: Every `Authorization` header of the request.
            peer: Where the request comes from, should the key have to be looked up.

        Raises:
            KitemeshError: Nobody whom we know; the same for every reason (`credential.invalid`).
            Busy: The key is not known here and its address asked for too many that nobody knows.
            Unavailable: The key is not known here and the store does not answer.

        """
        if not authorization:
            if self._anonymous is not None:
                return await self._without_credential(self._anonymous)
            raise _refused()
        text = _key_text(authorization)
        digest = keyring.digest(text, self._pepper)
        known = self._known.get(digest)
        now = self._clock.monotonic()
        if known is not None and self._is_fresh(known, now):
            principal: Principal | None = self._current(known)
        elif keyring.parse(text) is None or self._unknown.get(digest, now) > now:
            principal = None
        else:
            principal = await self._look_up(digest, peer)
        if principal is None:
            raise _refused()
        return principal

    def _is_fresh(self, known: Known, now: float) -> bool:
        since_s = max(known.asked_s, self._confirmed_s)
        return now < since_s + KNOWN_S and now < self._directory.fresh_until_s

    def _current(self, known: Known) -> Principal | None:
        if self._expired(known.record.expires_at_s):
            return None
        if known.version != self._directory.version:
            known.principal = principal_of(known.record, self._directory.of(known.record.tenant))
            known.version = self._directory.version
        return known.principal

    async def _without_credential(self, anonymous: Principal) -> Principal:
        directory = self._directory
        if self._clock.monotonic() >= directory.fresh_until_s and (self._store_state.is_up or not directory.version):
            # While the store is down nobody can change a tenant: what was known holds. What was never read does not.
            await directory.refresh()
        if self._nobody is None or self._nobody_version != directory.version:
            self._nobody = nobody(anonymous, directory.of(anonymous.tenant))
            self._nobody_version = directory.version
        return self._nobody

    async def _look_up(self, digest: str, peer: Callable[[], Peer]) -> Principal | None:
        """Ask the store once, however many requests wait for the same key."""
        lookup = self._lookups.get(digest)
        if lookup is not None:
            return await asyncio.shield(lookup)
        origin = self._addresses.take(peer)
        lookup = asyncio.create_task(self._ask(digest), name="key-lookup")
        self._lookups[digest] = lookup
        lookup.add_done_callback(lambda done: self._looked_up(digest, origin, done))
        # A client that goes away must not take the others' lookup with it.
        return await asyncio.shield(lookup)

    def _looked_up(self, digest: str, origin: str, lookup: asyncio.Task[Principal | None]) -> None:
        self._lookups.pop(digest, None)
        # An exception is seen here, so that a failure nobody waits for any more is not reported as lost.
        if lookup.cancelled() or lookup.exception() is not None:
            outcome = "failed"
        else:
            outcome = "unknown" if lookup.result() is None else "known"
        if outcome != "unknown":
            self._addresses.give_back(origin)
        _LOOKUPS[outcome]()

    async def _ask(self, digest: str) -> Principal | None:
        if not self._store_state.is_up:
            raise _store_down()
        generation = self._generation
        asked_s = self._clock.monotonic()
        try:
            async with asyncio.timeout(LOOKUP_S):
                record = await self._keys.find(digest)
                if self._clock.monotonic() >= self._directory.fresh_until_s:
                    await self._directory.refresh()
        except TimeoutError as exc:
            raise _store_down() from exc
        if record is None or not self._serves(record, digest):
            if generation == self._generation:
                _remember(self._unknown, digest, asked_s + UNKNOWN_S)
            return None
        # The cache has the digest as its key.
        record = replace(record, digest="")
        principal = principal_of(record, self._directory.of(record.tenant))
        # An answer may be older than the change that was just announced.
        if generation == self._generation:
            self._known.put(digest, Known(record, principal, self._directory.version, asked_s))
        return principal

    def _serves(self, record: KeyRecord, digest: str) -> bool:
        is_same = hmac.compare_digest(record.digest.encode(), digest.encode())
        return is_same and record.revoked_at_s is None and not self._expired(record.expires_at_s)

    def _expired(self, expires_at_s: float | None) -> bool:
        return expires_at_s is not None and self._clock.now_ms() >= expires_at_s * 1000

    def _on_change(self, subject: str, _: bytes) -> None:
        self.forget(subjects.last_token(subject))


def _remember(cache: OrderedDict[str, float], digest: str, until_s: float) -> None:
    if len(cache) >= UNKNOWN_MAX:
        cache.popitem(last=False)
    cache[digest] = until_s


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
