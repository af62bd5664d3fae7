import stat
from pathlib import Path
from typing import Any

import pytest

from kitemesh_cli.dev_key import DevKey, ensure_key, ensure_pepper
from kitemesh_contracts.scopes import Scope
from kitemesh_runtime import keyring
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.issuing import issue, state_of
from kitemesh_runtime.keys_memory import MemoryKeys

PEPPER = b"a pepper for the tests"


@pytest.fixture
def keys() -> MemoryKeys:
    return MemoryKeys(SystemClock())


async def ensure(keys: MemoryKeys, path: Path, **changes: Any) -> DevKey:
    wanted: dict[str, Any] = {"tenant": "dev", **changes}
    return await ensure_key(keys, path, wanted.pop("pepper", PEPPER), **wanted)


@pytest.mark.requirement("start:key-is-kept")
async def test_a_key_is_made_once_and_shown_again(keys: MemoryKeys, tmp_path: Path) -> None:
    first = await ensure(keys, tmp_path / "key")
    again = await ensure(keys, tmp_path / "key")
    assert (first.note, again.note) == ("made", "as before")
    assert first.text == again.text == (tmp_path / "key").read_text().strip()
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert len(await keys.list("dev")) == 1


async def test_a_key_that_the_store_does_not_know_is_made_anew(keys: MemoryKeys, tmp_path: Path) -> None:
    first = await ensure(keys, tmp_path / "key")
    emptied = MemoryKeys(SystemClock())
    second = await ensure(emptied, tmp_path / "key")
    assert second.text != first.text
    assert "does not know" in second.note


async def test_a_revoked_key_is_made_anew(keys: MemoryKeys, tmp_path: Path) -> None:
    first = await ensure(keys, tmp_path / "key")
    await keys.revoke("dev", keyring.parse(first.text) or "")
    second = await ensure(keys, tmp_path / "key")
    assert second.text != first.text
    assert "revoked" in second.note


@pytest.mark.parametrize("change", [{"tenant": "other"}, {"pepper": b"another pepper!!"}])
async def test_a_key_that_no_longer_fits_is_made_anew(
    keys: MemoryKeys, tmp_path: Path, change: dict[str, object]
) -> None:
    first = await ensure(keys, tmp_path / "key")
    second = await ensure(keys, tmp_path / "key", **change)
    assert second.text != first.text
    assert second.note.startswith("made anew")


async def test_a_key_without_a_scope_that_is_new_is_made_anew(keys: MemoryKeys, tmp_path: Path) -> None:
    text, old = await issue(keys, PEPPER, tenant="dev", scopes=[Scope.CHAT])
    (tmp_path / "key").write_text(text)
    made = await ensure(keys, tmp_path / "key")
    assert made.text != text
    assert "lacks admin, approve" in made.note
    assert f"key {old.id} is now revoked" in made.note


async def test_the_keys_agent_is_the_given_one_and_a_replaced_key_is_revoked(keys: MemoryKeys, tmp_path: Path) -> None:
    text, old = await issue(keys, PEPPER, tenant="dev", scopes=tuple(Scope), default_agent="gone")
    (tmp_path / "key").write_text(text)
    made = await ensure(keys, tmp_path / "key", agent="assistant")
    assert "is tied to agent gone" in made.note
    assert (await ensure(keys, tmp_path / "key", agent="assistant")).text == made.text
    records = {record.id: record for record in await keys.list("dev")}
    assert records.pop(old.id).revoked_at_s is not None
    (new,) = records.values()
    assert (new.default_agent, new.revoked_at_s) == ("assistant", None)
    # Without an agent that answers by itself it would name one that may be gone.
    assert "is tied to agent assistant" in (await ensure(keys, tmp_path / "key")).note


async def test_a_key_of_another_tenant_is_revoked_when_it_is_replaced(keys: MemoryKeys, tmp_path: Path) -> None:
    await ensure(keys, tmp_path / "key")
    await ensure(keys, tmp_path / "key", tenant="other")
    assert [record.revoked_at_s is None for record in await keys.list("dev")] == [False]
    assert [record.revoked_at_s is None for record in await keys.list("other")] == [True]


def test_the_pepper_is_made_once(tmp_path: Path) -> None:
    first = ensure_pepper(tmp_path / "pepper")
    assert ensure_pepper(tmp_path / "pepper") == first
    assert len(first) >= 32
    assert stat.S_IMODE((tmp_path / "pepper").stat().st_mode) == 0o600


@pytest.mark.requirement("key:shown-once")
async def test_an_issued_key_is_stored_as_a_digest_and_expires(keys: MemoryKeys) -> None:
    text, record = await issue(keys, PEPPER, tenant="a", scopes=["chat"], models=["m"], lifetime_s=60)
    assert keyring.parse(text) == record.id
    assert await keys.find(keyring.digest(text, PEPPER)) == record
    assert text not in repr(record)
    assert record.models == ("m",)
    assert state_of(record, record.created_at_s + 59) == "active"
    assert state_of(record, record.created_at_s + 60) == "expired"
    revoked = await keys.revoke("a", record.id)
    assert revoked is not None
    assert state_of(revoked, record.created_at_s) == "revoked"
