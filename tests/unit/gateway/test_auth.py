import asyncio
from typing import Any

import pytest

from kitemesh_contracts import subjects
from kitemesh_contracts.errors import Busy, ErrorCode, KitemeshError, Unavailable
from kitemesh_contracts.scopes import Scope
from kitemesh_gateway import auth
from kitemesh_gateway.address_limit import AddressLimit
from kitemesh_gateway.auth import KNOWN_S, UNKNOWN_S, Authenticator, Principal
from kitemesh_gateway.peers import Peer
from kitemesh_runtime import keyring
from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.directory import TRUSTED_S, Directory
from kitemesh_runtime.keys import KeyRecord
from kitemesh_runtime.tenancy import Changes, Limits, TenantRecord
from kitemesh_runtime.tenants_memory import MemoryTenants
from unit.gateway.rig import DeafBus, ManualClock

PEPPER = b"pepper-for-the-tests"
KEY = keyring.make(bytes(range(40)))
OTHER = keyring.make(bytes(range(1, 41)))
NOWHERE = Peer()
ANONYMOUS = Principal(tenant="dev", key="", scopes=frozenset({"chat"}))


def record(key: keyring.NewKey = KEY, **fields: Any) -> KeyRecord:
    values = {"tenant": "acme", "scopes": ("chat",), "created_at_s": 1.0, **fields}
    return KeyRecord(id=key.id, digest=keyring.digest(key.text, PEPPER), **values)


class CountingKeys:
    """A store of keys that counts its lookups, answers when it is let, and says what changed."""

    def __init__(self, *records: KeyRecord) -> None:
        self.records = {each.digest: each for each in records}
        self.changed: list[str] = []
        self.asked_since: list[float | None] = []
        self.is_down = False
        self.lookups = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked = asyncio.Event()

    async def find(self, digest: str) -> KeyRecord | None:
        self.lookups += 1
        self.asked.set()
        found = self.records.get(digest)
        await self.may_answer.wait()
        return found

    async def changes(self, since: float | None) -> Changes:
        if self.is_down:
            raise Unavailable(ErrorCode.STORE_DOWN, "down")
        self.asked_since.append(since)
        return Changes(self.changed if since is not None else [], 7.0)


class Door:
    """An authenticator with its surroundings."""

    def __init__(
        self, *records: KeyRecord, anonymous: Principal | None = None, per_s: float = 0, proxies: int = 0
    ) -> None:
        self.clock = ManualClock()
        self.keys = CountingKeys(*records)
        self.tenants = MemoryTenants(self.clock)
        self.directory = Directory(self.tenants, self.clock)
        self.bus = DeafBus()
        self.store_state = Dependency("mongodb")
        self.store_state.mark_up()
        self.authenticator = Authenticator(
            self.keys,  # type: ignore[arg-type]
            self.directory,
            PEPPER,
            self.clock,
            anonymous=anonymous,
            store_state=self.store_state,
            addresses=AddressLimit(per_s, proxies, self.clock),
        )

    async def knock(self, *authorization: str, peer: Peer = NOWHERE) -> Principal:
        async with asyncio.timeout(5):
            return await self.authenticator.identify(authorization, lambda: peer)

    async def pass_time(self, seconds: float) -> None:
        """Let time pass while what runs in the background does its work."""
        self.clock.now_s += seconds
        await self.authenticator.confirm()
        await self.directory.begin()

    async def is_refused(self, *authorization: str) -> bool:
        try:
            await self.knock(*authorization)
        except KitemeshError as exc:
            return exc.code is ErrorCode.CREDENTIAL_INVALID
        return False


def bearer(key: keyring.NewKey = KEY) -> str:
    return f"Bearer {key.text}"


async def test_a_key_becomes_its_principal() -> None:
    door = Door(record(scopes=("chat", "admin"), default_agent="helper", models=("m",)))
    assert await door.knock(bearer()) == Principal(
        tenant="acme",
        key=KEY.id,
        scopes=frozenset({"chat", "admin"}),
        default_agent="helper",
        models=frozenset({"m", "agent:helper"}),
    )


@pytest.mark.requirement("conversation:keys-of-one-tenant")
async def test_a_key_may_name_its_default_agent_besides_its_models() -> None:
    helped = await Door(record(default_agent="helper", models=("m",))).knock(bearer())
    assert [helped.allows(name) for name in ("m", "agent:helper", "agent:other")] == [True, True, False]
    assert (await Door(record(default_agent="helper")).knock(bearer())).models is None


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
async def test_the_schemes_case_does_not_matter(scheme: str) -> None:
    assert (await Door(record()).knock(f"{scheme} {KEY.text}")).tenant == "acme"


REFUSED = [
    (),
    ("",),
    ("Bearer",),
    ("Bearer ",),
    (KEY.text,),
    (f"Basic {KEY.text}",),
    (f"Token {KEY.text}",),
    (f"Bearer {KEY.text[:-1]}",),
    (f"Bearer {KEY.text[:-1]}" + ("a" if KEY.text[-1] != "a" else "b"),),
    (f"Bearer {KEY.text} x",),
    ("Bearer sk-something",),
    ("Bearer \udcff\udcfe",),
    ("Bearer kø",),
    (bearer(), bearer()),
    (bearer(OTHER),),
]


@pytest.mark.requirement("http:credential-one-answer")
@pytest.mark.parametrize("authorization", REFUSED, ids=range(len(REFUSED)))
async def test_every_credential_that_is_no_good_is_refused_alike(authorization: tuple[str, ...]) -> None:
    door = Door(record())
    with pytest.raises(KitemeshError) as refused:
        await door.knock(*authorization)
    assert refused.value.code is ErrorCode.CREDENTIAL_INVALID
    assert refused.value.message == (
        "The credential is missing, malformed, unknown, revoked or expired; send `Authorization: Bearer km_…`"
    )


async def test_what_the_checksum_refuses_costs_no_lookup() -> None:
    door = Door(record())
    assert await door.is_refused(f"Bearer {KEY.text[:-1]}")
    assert await door.is_refused("Bearer km_nothing")
    assert door.keys.lookups == 0


@pytest.mark.requirement("http:credential-one-answer")
async def test_revoked_and_expired_keys_are_refused() -> None:
    assert await Door(record(revoked_at_s=5.0)).is_refused(bearer())
    assert await Door(record(expires_at_s=1000.0)).is_refused(bearer())
    assert not await Door(record(expires_at_s=1001.0)).is_refused(bearer())


async def test_a_digest_that_does_not_match_is_refused_whatever_the_store_says() -> None:
    door = Door()
    door.keys.records[keyring.digest(KEY.text, PEPPER)] = record(OTHER)
    assert await door.is_refused(bearer())


@pytest.mark.requirement("http:anonymous-principal")
async def test_a_request_without_a_credential_is_the_anonymous_principals_where_there_is_one() -> None:
    door = Door(record(), anonymous=ANONYMOUS)
    assert await door.knock() == ANONYMOUS
    assert await door.is_refused("")
    assert await door.is_refused(bearer(OTHER))


async def test_without_questions_in_the_background_a_key_is_looked_up_again_after_a_while() -> None:
    door = Door(record())
    await door.knock(bearer())
    door.clock.now_s += KNOWN_S - 0.1
    await door.knock(bearer())
    assert door.keys.lookups == 1
    door.clock.now_s += 0.2
    await door.knock(bearer())
    assert door.keys.lookups == 2


@pytest.mark.requirement("keys:cost-nothing-while-unchanged")
async def test_one_question_for_changes_keeps_every_key_known() -> None:
    door = Door(record(), record(OTHER))
    await door.pass_time(0)
    await door.knock(bearer())
    await door.knock(bearer(OTHER))
    for _ in range(20):
        await door.pass_time(1.5)
        await door.knock(bearer())
        await door.knock(bearer(OTHER))
    assert door.keys.lookups == 2
    assert door.keys.asked_since == [None, *[7.0] * 20]


async def test_the_first_question_confirms_nothing_that_was_known_before_it() -> None:
    door = Door(record())
    await door.knock(bearer())
    await door.pass_time(KNOWN_S - 0.1)
    door.clock.now_s += 0.2
    await door.knock(bearer())
    assert door.keys.lookups == 2


@pytest.mark.requirement("promise:P17")
async def test_a_revocation_is_noticed_within_five_seconds_without_the_broadcast() -> None:
    door = Door(record(), record(OTHER))
    await door.pass_time(0)
    await door.pass_time(1.5)
    await door.knock(bearer())
    await door.knock(bearer(OTHER))
    del door.keys.records[record().digest]
    door.keys.changed = [KEY.id]
    await door.pass_time(1.5)
    assert await door.is_refused(bearer())
    assert not await door.is_refused(bearer(OTHER))
    assert door.keys.lookups == 3


@pytest.mark.requirement("promise:P17")
async def test_a_revocation_is_noticed_within_five_seconds_where_changes_cannot_be_asked_for() -> None:
    door = Door(record())
    await door.pass_time(0)
    await door.pass_time(1.5)
    await door.knock(bearer())
    door.keys.is_down = True
    door.keys.records = {}
    for _ in range(3):
        await door.pass_time(1.5)
    assert await door.is_refused(bearer())


@pytest.mark.requirement("promise:P17")
async def test_a_revocation_is_noticed_at_once_with_the_broadcast() -> None:
    door = Door(record(), record(OTHER))
    await door.authenticator.listen(door.bus.as_bus())
    await door.knock(bearer())
    await door.knock(bearer(OTHER))
    door.keys.records = {}
    door.bus.listeners[subjects.KEY_ALL](subjects.key_changed(KEY.id), b"")
    assert await door.is_refused(bearer())
    assert not await door.is_refused(bearer(OTHER))


@pytest.mark.requirement("promise:P17")
async def test_a_lookup_that_was_overtaken_by_a_change_does_not_stay() -> None:
    door = Door(record())
    await door.pass_time(0)
    await door.pass_time(1.5)
    door.keys.may_answer.clear()
    asking = asyncio.create_task(door.knock(bearer()))
    await door.keys.asked.wait()
    door.keys.records = {}
    # The question for changes is answered first, and a later one tells them again.
    door.keys.changed = [KEY.id]
    await door.pass_time(0.1)
    door.keys.may_answer.set()
    await asking
    await door.pass_time(1.5)
    assert await door.is_refused(bearer())


async def test_an_answer_older_than_the_broadcast_is_not_remembered() -> None:
    door = Door(record())
    await door.authenticator.listen(door.bus.as_bus())
    door.keys.may_answer.clear()
    asking = asyncio.create_task(door.knock(bearer()))
    await door.keys.asked.wait()
    door.keys.records = {}
    door.bus.listeners[subjects.KEY_ALL](subjects.key_changed(KEY.id), b"")
    door.keys.may_answer.set()
    await asking
    assert await door.is_refused(bearer())


async def test_a_key_expires_while_it_is_remembered() -> None:
    door = Door(record(expires_at_s=1002.0))
    await door.knock(bearer())
    door.clock.now_s += 2.0
    assert await door.is_refused(bearer())
    assert door.keys.lookups == 1


async def test_an_unknown_key_is_remembered_for_a_shorter_while() -> None:
    door = Door()
    assert await door.is_refused(bearer())
    door.keys.records = {record().digest: record()}
    assert await door.is_refused(bearer())
    assert door.keys.lookups == 1
    door.clock.now_s += UNKNOWN_S
    assert not await door.is_refused(bearer())


async def test_guessing_does_not_grow_the_memory_nor_push_known_keys_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "UNKNOWN_MAX", 100)
    door = Door(record())
    await door.knock(bearer())
    for n in range(110):
        key = keyring.make(n.to_bytes(40, "big"))
        assert await door.is_refused(bearer(key))
    assert len(door.authenticator._unknown) == 100
    await door.knock(bearer())
    assert door.keys.lookups == 111


GUESSES = [keyring.make(n.to_bytes(40, "big")) for n in range(300)]


@pytest.mark.requirement("keys:address-limit")
async def test_an_address_that_guesses_is_told_to_wait_and_another_one_is_not() -> None:
    door = Door(record(), per_s=2)
    here, there = Peer("192.0.2.1"), Peer("192.0.2.2")
    for key in GUESSES[:10]:
        with pytest.raises(KitemeshError) as refused:
            await door.knock(bearer(key), peer=here)
        assert refused.value.code is ErrorCode.CREDENTIAL_INVALID
    with pytest.raises(Busy) as busy:
        await door.knock(bearer(GUESSES[10]), peer=here)
    assert busy.value.code is ErrorCode.RATE_LIMITED
    assert busy.value.retry_after_s == 0.5
    assert door.keys.lookups == 10
    await door.knock(bearer(), peer=there)
    door.clock.now_s += 0.5
    with pytest.raises(KitemeshError) as refused:
        await door.knock(bearer(GUESSES[10]), peer=here)
    assert refused.value.code is ErrorCode.CREDENTIAL_INVALID


@pytest.mark.requirement("keys:address-limit")
async def test_keys_that_exist_are_known_or_found_however_many_one_address_sends() -> None:
    door = Door(*(record(key) for key in GUESSES), per_s=1)
    for key in GUESSES:
        await door.knock(bearer(key), peer=Peer("192.0.2.1"))
    for key in GUESSES:
        await door.knock(bearer(key), peer=Peer("192.0.2.1"))
    assert door.keys.lookups == len(GUESSES)


async def test_a_lookup_that_fails_is_not_held_against_its_address() -> None:
    door = Door(record(), per_s=1)
    door.store_state.mark_down("gone")
    for key in GUESSES[:20]:
        with pytest.raises(Unavailable):
            await door.knock(bearer(key), peer=Peer("192.0.2.1"))
    door.store_state.mark_up()
    await door.knock(bearer(), peer=Peer("192.0.2.1"))


@pytest.mark.requirement("tenants:defaults")
async def test_what_is_said_of_a_tenant_holds_for_its_keys_within_five_seconds() -> None:
    door = Door(record(limits=Limits(tokens_per_minute=7)))
    await door.pass_time(0)
    assert (await door.knock(bearer())).tenant_limits == Limits()
    said = TenantRecord(
        id="acme",
        limits=Limits(requests_per_minute=60),
        key_limits=Limits(requests_per_minute=6, tokens_per_minute=600),
        default_agent="helper",
        models=("m",),
        priority="batch",
    )
    await door.tenants.put(said)
    await door.pass_time(1.5)
    assert await door.knock(bearer()) == Principal(
        tenant="acme",
        key=KEY.id,
        scopes=frozenset({"chat"}),
        default_agent="helper",
        models=frozenset({"m", "agent:helper"}),
        limits=Limits(requests_per_minute=6, tokens_per_minute=7),
        tenant_limits=Limits(requests_per_minute=60),
        priority="batch",
    )
    assert door.keys.lookups == 1


async def test_a_tenant_that_cannot_be_read_any_more_is_read_before_its_key_is_let_in() -> None:
    door = Door(record())
    await door.pass_time(0)
    await door.knock(bearer())
    await door.tenants.put(TenantRecord(id="acme", limits=Limits(requests_per_minute=60)))
    for _ in range(3):
        door.clock.now_s += 1.5
        await door.authenticator.confirm()
    assert door.clock.now_s >= 1000 + TRUSTED_S
    assert (await door.knock(bearer())).tenant_limits == Limits(requests_per_minute=60)


@pytest.mark.requirement("tenants:defaults")
async def test_the_anonymous_principal_has_its_tenants_limits() -> None:
    door = Door(anonymous=ANONYMOUS)
    await door.tenants.put(TenantRecord(id="*", limits=Limits(concurrent_turns=2)))
    assert (await door.knock()).tenant_limits == Limits(concurrent_turns=2)
    await door.tenants.put(TenantRecord(id="dev", key_limits=Limits(requests_per_minute=3)))
    await door.pass_time(1.5)
    told = await door.knock()
    assert (told.limits, told.tenant_limits) == (Limits(requests_per_minute=3), Limits(concurrent_turns=2))


async def test_with_the_store_down_the_anonymous_principal_keeps_the_limits_that_were_known() -> None:
    door = Door(anonymous=ANONYMOUS)
    await door.tenants.put(TenantRecord(id="dev", limits=Limits(concurrent_turns=2)))
    await door.knock()
    door.store_state.mark_down("gone")
    door.clock.now_s += 60
    assert (await door.knock()).tenant_limits == Limits(concurrent_turns=2)


async def test_requests_with_the_same_key_share_a_lookup_that_outlives_each_of_them() -> None:
    door = Door(record())
    door.keys.may_answer.clear()
    first, second = (asyncio.create_task(door.knock(bearer())) for _ in range(2))
    await door.keys.asked.wait()
    first.cancel()
    await asyncio.wait([first])
    door.keys.may_answer.set()
    assert (await second).tenant == "acme"
    assert door.keys.lookups == 1


async def test_with_the_store_down_only_remembered_keys_pass() -> None:
    door = Door(record(), record(OTHER))
    await door.knock(bearer())
    door.store_state.mark_down("gone")
    assert not await door.is_refused(bearer())
    with pytest.raises(Unavailable) as refused:
        await door.knock(bearer(OTHER))
    assert refused.value.code is ErrorCode.STORE_DOWN
    assert refused.value.retry_after_s is not None


def test_a_principal_names_only_what_it_may() -> None:
    limited = Principal(tenant="t", key="k", scopes=frozenset({"chat"}), models=frozenset({"m", "group:abc"}))
    assert limited.allows("m")
    assert limited.allows("group:ABC")
    assert not limited.allows("n")
    assert not limited.allows("M")
    assert ANONYMOUS.allows("n")


@pytest.mark.requirement("http:credential-scope")
def test_a_scope_that_was_not_given_is_refused() -> None:
    ANONYMOUS.require(Scope.CHAT)
    with pytest.raises(KitemeshError) as refused:
        ANONYMOUS.require(Scope.ADMIN)
    assert refused.value.code is ErrorCode.PERMISSION_DENIED
    assert refused.value.message == "This key does not have the scope admin"
