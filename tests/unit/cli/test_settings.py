from pathlib import Path

import pytest

from kitemesh_cli.data_folder import DataFolder, write_environment
from kitemesh_cli.dev_lock import acquire
from kitemesh_cli.settings import BootstrapSettings, DevSettings, effective_environment, load_settings
from kitemesh_runtime.settings import SettingsError

KEPT = {
    "KITEMESH_NATS_URL": "nats://127.0.0.1:41",
    "KITEMESH_MONGO_URL": "mongodb://127.0.0.1:42",
    "KITEMESH_KEY_PEPPER": "dev pepper",
}


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    folder = DataFolder(tmp_path)
    folder.create()
    write_environment(folder.environment, KEPT)
    return folder


def test_a_cluster_that_runs_here_is_found(folder: DataFolder) -> None:
    lock = acquire(folder.lock, "http://127.0.0.1:8002")
    try:
        assert effective_environment(folder, {"HOME": "/home/me"}) == {"HOME": "/home/me", **KEPT}
        assert effective_environment(folder, {"KITEMESH_LOG_LEVEL": "debug"})["KITEMESH_NATS_URL"].endswith(":41")
    finally:
        lock.release()


def test_a_cluster_that_has_ended_is_not(folder: DataFolder) -> None:
    assert effective_environment(folder, {}) == {}


@pytest.mark.parametrize("name", ["KITEMESH_NATS_URL", "KITEMESH_MONGO_URL", "KITEMESH_KEY_PEPPER"])
def test_naming_another_installation_leaves_nothing_of_the_one_here(folder: DataFolder, name: str) -> None:
    lock = acquire(folder.lock, "http://127.0.0.1:8002")
    try:
        assert effective_environment(folder, {name: "another"}) == {name: "another"}
        assert effective_environment(folder, {name: KEPT[name]}) == KEPT
    finally:
        lock.release()


def test_an_unknown_variable_and_a_bad_value_are_told_together(folder: DataFolder) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(BootstrapSettings, folder, {"KITEMESH_REPLICA_COUNT": "3", "KITEMESH_REPLICAS": "many"})
    assert len(caught.value.problems) == 2


def test_the_supervisor_knows_what_the_person_has_set() -> None:
    assert "catalog" not in DevSettings().model_fields_set
    assert DevSettings(catalog=Path("mine.yaml")).model_fields_set == {"catalog"}


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("KITEMESH_NATS_URL", "nats://a:s/cret@h:1"),
        ("KITEMESH_NATS_URL", "nats://a:right@h:1,nats://a:12/cret@h:1"),
        ("KITEMESH_NATS_URL", "tls://a:s?cret@h"),
        ("KITEMESH_MONGO_URL", "mongodb://a:s/cret@h:1,i:2/?tls=true"),
        ("KITEMESH_MONGO_URL", "mongodb://h:one,i:2"),
    ],
)
def test_a_password_that_is_not_encoded_is_a_problem_that_does_not_show_it(
    folder: DataFolder, name: str, url: str
) -> None:
    with pytest.raises(SettingsError, match="percent-encoded") as caught:
        load_settings(BootstrapSettings, folder, {name: url})
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://a:s%2Fcret@h:1,i:2/db?authSource=a@b",
        "mongodb://[::1]:27017,h/",
        "mongodb+srv://a:b@cluster.example",
        "mongodb://%2Ftmp%2Fmongodb.sock",
    ],
)
def test_addresses_as_drivers_read_them_are_taken(folder: DataFolder, url: str) -> None:
    assert load_settings(BootstrapSettings, folder, {"KITEMESH_MONGO_URL": url}).mongo_url.get_secret_value() == url
