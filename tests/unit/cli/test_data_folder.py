import os
import stat
from pathlib import Path

import pytest

from kitemesh_cli.data_folder import (
    LOGS_KEPT,
    DataFolder,
    read_environment,
    read_text,
    write_environment,
    write_private,
)
from kitemesh_cli.failures import Failed


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_private_file_is_its_owners_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "key", "secret\n")
        DataFolder(tmp_path / "data").create()
    finally:
        os.umask(before)
    assert mode(tmp_path / "key") == 0o600
    assert mode(tmp_path / "data") == 0o700
    assert read_text(tmp_path / "key") == "secret"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["key"]


def test_a_folder_that_cannot_be_made_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(
            Failed, match=r"the data folder .* is, or lies below, a file; choose another: make up DATA="
        ):
            DataFolder(root).create()


def test_a_private_file_replaces_one_that_others_could_read(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert (path.read_text(), mode(path)) == ("new", 0o600)


def test_variables_come_back_as_they_were_written(tmp_path: Path) -> None:
    variables = {"A": "nats://u:p'w$d@h:1", "B": "", "C": 'two words "quoted"'}
    write_environment(tmp_path / "env", variables)
    assert read_environment(tmp_path / "env") == variables
    assert mode(tmp_path / "env") == 0o600
    assert read_environment(tmp_path / "nothing") == {}


def test_logs_of_earlier_runs_are_kept_up_to_a_number(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    folder.create()
    for run in range(LOGS_KEPT + 3):
        folder.log("gateway").write_text(f"run {run}")
        folder.rotate_logs()
    newest = LOGS_KEPT + 2
    assert {path.name: path.read_text() for path in folder.logs.iterdir()} == {
        f"gateway.log.{number}": f"run {newest + 1 - number}" for number in range(1, LOGS_KEPT + 1)
    }
