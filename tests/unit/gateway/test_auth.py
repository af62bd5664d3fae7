import asyncio
from typing import Any

import pytest

from kitemesh_contracts import subjects
from kitemesh_contracts.errors import ErrorCode, KitemeshError, Unavailable
from kitemesh_contracts.scopes import Scope
from kitemesh_gateway.auth import CACHE_MAX, KNOWN_S, UNKNOWN_S, Authenticator, Principal
from kitemesh_runtime import keyring
from kitemesh_runtime.dependency import Dependency
from kitemesh_runtime.stores import KeyRecord
from unit.gateway.rig import DeafBus, ManualClock

PEPPER = b"pepper-for-the-tests"
KEY = keyring.make(bytes(range(40)))
OTHER = keyring.make(bytes(range(1, 41)))
ANONYMOUS = Principal(tenant="dev", key="", scopes=frozenset({"chat"}))


def record(key: keyring.NewKey = KEY, **fields: Any) -> KeyRecord:
    values = {"tenant": "acme", "scopes": ("chat",), "created_at_s": 1.0, **fields}
    return KeyRecord(id=key.id, digest=keyring.digest(key.text, PEPPER), **values)


class CountingKeys:
    """A store of keys that counts its lookups and answers when it is let."""

    def __init__(self, *records: KeyRecord) -> None:
        self.records = {each.digest: each for each in records}
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


class Door:
    """An authenticator with its surroundings."""

    def __init__(self, *records: KeyRecord, anonymous: Principal | None = None) -> None:
        self.clock = ManualClock()
        self.keys = CountingKeys(*records)
        self.bus = DeafBus()
        self.store_state = Dependency("mongodb")
        self.store_state.mark_up()
        self.authenticator = Authenticator(
            self.keys,  # type: ignore[arg-type]
            PEPPER,
            self.clock,
            anonymous,
            self.store_state,
        )

    async def knock(self, *authorization: str) -> Principal:
        async with asyncio.timeout(5):
            return await self.authenticator.identify(authorization)

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
    assert await door.knock() is ANONYMOUS
    assert await door.is_refused("")
    assert await door.is_refused(bearer(OTHER))


async def test_a_known_key_is_not_looked_up_again_for_a_while() -> None:
    door = Door(record())
    await door.knock(bearer())
    door.clock.now_s += KNOWN_S - 0.1
    await door.knock(bearer())
    assert door.keys.lookups == 1
    door.clock.now_s += 0.2
    await door.knock(bearer())
    assert door.keys.lookups == 2


@pytest.mark.requirement("promise:P17")
async def test_a_revocation_is_noticed_within_five_seconds_without_the_broadcast() -> None:
    door = Door(record())
    await door.knock(bearer())
    door.keys.records = {}
    door.clock.now_s += 5.0
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


async def test_guessing_does_not_grow_the_memory_nor_push_known_keys_out() -> None:
    door = Door(record())
    await door.knock(bearer())
    for n in range(CACHE_MAX + 10):
        key = keyring.make(n.to_bytes(40, "big"))
        assert await door.is_refused(bearer(key))
    assert len(door.authenticator._unknown) == CACHE_MAX
    await door.knock(bearer())
    assert door.keys.lookups == CACHE_MAX + 11


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
    assert ANONYMOUS.allows("n")


@pytest.mark.requirement("http:credential-scope")
def test_a_scope_that_was_not_given_is_refused() -> None:
    ANONYMOUS.require(Scope.CHAT)
    with pytest.raises(KitemeshError) as refused:
        ANONYMOUS.require(Scope.ADMIN)
    assert refused.value.code is ErrorCode.PERMISSION_DENIED
    assert refused.value.message == "This key does not have the scope admin"
