from pathlib import Path

import pytest

from kitemesh_cli.access import Access, ensure_access
from kitemesh_contracts.permissions import OPERATOR, SERVICES

ACCESS = Access(nats={"gateway": "n-1", OPERATOR: "n_2"}, mongo={"gateway": "m-1"})


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("nats://127.0.0.1:4222", "nats://gateway:n-1@127.0.0.1:4222"),
        ("nats://root:secret@a:1, tls://b:2", "nats://gateway:n-1@a:1,tls://gateway:n-1@b:2"),
    ],
)
def test_every_address_of_nats_names_the_user(url: str, told: str) -> None:
    assert ACCESS.bus_url(url, "gateway") == told


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mongodb://a:1", "mongodb://gateway:m-1@a:1/?authSource=kitemesh"),
        (
            "mongodb://root:p%40ss@a:1,b:2/?replicaSet=rs&authSource=admin&tls=true",
            "mongodb://gateway:m-1@a:1,b:2/?replicaSet=rs&tls=true&authSource=kitemesh",
        ),
        ("mongodb+srv://db.example/x", "mongodb+srv://gateway:m-1@db.example/x?authSource=kitemesh"),
    ],
)
def test_the_address_of_mongodb_names_the_user_and_where_it_is_known(url: str, told: str) -> None:
    assert ACCESS.store_url(url, "gateway", source="kitemesh") == told


def test_passwords_are_made_once_and_differ(tmp_path: Path) -> None:
    kept = tmp_path / "access.json"
    made = ensure_access(kept)
    assert ensure_access(kept) == made
    assert set(made.nats) == set(made.mongo) == {*SERVICES, OPERATOR}
    assert len({*made.nats.values(), *made.mongo.values()}) == 2 * len(made.nats)
    assert kept.stat().st_mode & 0o077 == 0


def test_a_user_that_a_later_release_brings_gets_a_password_and_the_others_keep_theirs(tmp_path: Path) -> None:
    kept = tmp_path / "access.json"
    kept.write_text('{"nats": {"gateway": "old"}, "mongo": {}}')
    assert ensure_access(kept).nats["gateway"] == "old"
    assert set(ensure_access(kept).nats) == {*SERVICES, OPERATOR}
