"""What `make setup` says on machines that lack something; the interpreter and `uname` are stand-ins."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

INSTALLED = "kitemesh-setup.stamp"


@pytest.fixture
def checkout(tmp_path: Path, repository: Path) -> Path:
    """A checkout with the files that set-up looks at, and an empty folder of commands that comes first on the path."""
    checkout = tmp_path / "checkout"
    for pattern in ("uv.lock", "VERSION", "pyproject.toml", "*/pyproject.toml", "*/*/pyproject.toml"):
        for file in repository.glob(pattern):
            target = checkout / file.relative_to(repository)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    (checkout / "scripts").mkdir()
    shutil.copy(repository / "scripts" / "setup.sh", checkout / "scripts" / "setup.sh")
    (tmp_path / "bin").mkdir()
    return checkout


def add_command(checkout: Path, name: str, script: str) -> Path:
    path = checkout.parent / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def set_up(checkout: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    path = f"{checkout.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "scripts/setup.sh"],
        cwd=checkout,
        capture_output=True,
        text=True,
        env={"PATH": path, **environ},
        timeout=60,
        check=False,
    )


@pytest.mark.requirement("start:names-what-is-missing")
def test_python_that_is_missing_is_named_with_its_package(checkout: Path) -> None:
    told = set_up(checkout, PYTHON="python-that-is-not-there")
    assert told.returncode == 1
    assert "python-that-is-not-there is not installed" in told.stderr
    assert "apt-get install python3 python3-venv" in told.stderr


def test_python_that_is_too_old_is_told_with_both_versions(checkout: Path) -> None:
    add_command(checkout, "python3", 'case "$2" in *version_info*3,\\ 11*) exit 1 ;; *) echo 3.9.2 ;; esac')
    told = set_up(checkout)
    assert told.returncode == 1
    assert "python3 is version 3.9.2; kitemesh needs 3.11 or later" in told.stderr
    assert "PYTHON=" in told.stderr


@pytest.mark.requirement("start:names-what-is-missing")
def test_a_missing_venv_module_is_named_with_its_package(checkout: Path) -> None:
    add_command(checkout, "python3", 'case "$2" in *ensurepip*) exit 1 ;; *) echo 3.11.2 ;; esac')
    told = set_up(checkout)
    assert told.returncode == 1
    assert "apt-get install python3-venv" in told.stderr
    assert not (checkout / ".venv").exists()


def test_a_machine_without_a_mongodb_wheel_is_told_so(checkout: Path) -> None:
    add_command(checkout, "uname", 'case "$1" in -m) echo riscv64 ;; *) echo Linux ;; esac')
    told = set_up(checkout)
    assert told.returncode == 1
    assert "no MongoDB wheel for Linux on riscv64" in told.stderr


@pytest.mark.requirement("start:names-what-is-missing")
def test_a_library_that_mongod_lacks_is_named_with_its_package(checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    stand_in_environment(checkout, library_problem="mongod needs libcurl.so.4: apt-get install libcurl4 libssl3")
    assert python.exists()
    told = set_up(checkout)
    assert told.returncode == 1
    assert "apt-get install libcurl4 libssl3" in told.stderr
    assert not (checkout / ".venv" / INSTALLED).exists()
    assert set_up(checkout, KITEMESH_MONGO_URL="mongodb://elsewhere").returncode == 0


def test_a_second_run_is_silent_until_what_is_to_be_installed_changes(checkout: Path) -> None:
    stand_in_environment(checkout)
    first = set_up(checkout)
    assert first.returncode == 0, first.stderr
    assert "using the .venv that is here" in first.stdout
    second = set_up(checkout)
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    (checkout / "uv.lock").write_text("changed")
    assert "installing what uv.lock names" in set_up(checkout).stdout


def test_another_python_than_that_of_the_environment_is_not_passed_over(checkout: Path) -> None:
    stand_in_environment(checkout)
    assert set_up(checkout).returncode == 0
    (checkout / ".venv" / "bin" / "python").write_text("#!/bin/sh\necho 3.11.2\n")
    add_command(checkout, "python3.12", "echo 3.12.1")
    told = set_up(checkout, PYTHON="python3.12")
    assert told.returncode == 1
    assert told.stderr == "setup: .venv has Python 3.11.2 and python3.12 is 3.12.1; `make clean` first to change\n"
    add_command(checkout, "python3.11", "echo 3.11.2")
    assert set_up(checkout, PYTHON="python3.11").returncode == 0


def test_an_environment_that_was_moved_is_made_again(checkout: Path) -> None:
    stand_in_environment(checkout)
    assert set_up(checkout).returncode == 0
    moved = checkout.parent / "moved"
    checkout.rename(moved)
    add_command(moved, "python3", 'case "$*" in *venv\\ .venv) echo making; exit 1 ;; *) echo 3.11.2 ;; esac')
    told = set_up(moved)
    assert "making .venv with Python 3.11.2" in told.stdout


def stand_in_environment(checkout: Path, *, library_problem: str = "") -> None:
    """Make a `.venv` whose programs do nothing, so that nothing is downloaded."""
    programs = checkout / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f'VIRTUAL_ENV="{checkout}/.venv"\n')
    python = f"case \"$*\" in *check_mongod*) printf '%s' '{library_problem}' ;; esac"
    for name, script in {"python": python, "uv": "true", "kitemesh": "true"}.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
