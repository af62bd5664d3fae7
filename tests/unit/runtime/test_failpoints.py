"""Failpoints: off unless named, on the pass that was asked for."""

import subprocess
import sys
from pathlib import Path

import pytest

from kitemesh_runtime import failpoints

SCRIPT = """
import asyncio
from kitemesh_contracts.errors import Unavailable
from kitemesh_runtime.failpoints import guard, reach

async def call():
    print("ran", flush=True)
    return 7

async def main():
    for n in range(3):
        try:
            await reach("here")
            print("passed", n, await guard("there", call()), flush=True)
        except Unavailable as exc:
            print("raised", n, flush=True)

asyncio.run(main())
"""


def run(value: str) -> tuple[int, list[str]]:
    """Run the script with a failpoint armed; return the exit code and what was printed."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, env={"KITEMESH_FAILPOINT": value}
    )
    return done.returncode, done.stdout.splitlines()


@pytest.mark.requirement("failpoint:off-unless-armed")
def test_nothing_happens_unless_it_is_armed() -> None:
    assert run("") == (0, ["ran", "passed 0 7", "ran", "passed 1 7", "ran", "passed 2 7"])
    assert run("elsewhere:kill") == run("")


@pytest.mark.requirement("failpoint:off-unless-armed")
def test_it_acts_on_the_pass_that_was_asked_for_and_once() -> None:
    assert run("here:raise:2") == (0, ["ran", "passed 0 7", "raised 1", "ran", "passed 2 7"])


def test_a_guarded_call_runs_and_then_times_out() -> None:
    assert run("there:exec_and_timeout") == (0, ["ran", "raised 0", "ran", "passed 1 7", "ran", "passed 2 7"])


def test_a_process_kills_itself() -> None:
    assert run("here:kill:3") == (-9, ["ran", "passed 0 7", "ran", "passed 1 7"])


def test_a_file_says_how_often_it_happens_over_all_processes(tmp_path: Path) -> None:
    left = tmp_path / "left"
    assert run(f"here:kill@{left}") == run("")
    left.write_bytes(b"xx")
    assert [run(f"here:kill:2@{left}")[0] for _ in range(3)] == [-9, -9, 0]
    left.write_bytes(b"xx")
    assert run(f"here:raise:2@{left}") == (0, ["ran", "passed 0 7", "raised 1", "raised 2"])
    assert left.read_bytes() == b""


@pytest.mark.parametrize("text", ["x", "x:", "x:explode", "x:kill:soon", "x:kill:-1"])
def test_a_wrong_value_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="failpoint"):
        failpoints.parse(text)
