"""`kitemesh demo`, in its shortest form, without a terminal."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cluster import clean_environment
from kitemesh_cli.demo_story import SCRIPT

PACE_MS = "10"
KILLED = re.compile(r"^\[ *[\d.]+ s\] kill -9 (\d+): (\S+), which", re.MULTILINE)


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "kitemesh_cli", "demo", "--plain", "--pace-ms", PACE_MS],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**clean_environment(), "TMPDIR": str(folder)},
        start_new_session=True,
    )


def test_the_demo_kills_a_runner_and_a_gateway_and_its_client_finishes_untouched(tmp_path: Path) -> None:
    process = start(tmp_path)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    names = [name for _, name in KILLED.findall(printed)]
    assert [name.removesuffix("-2") for name in names] == ["model-runner", "gateway"]
    assert "with Last-Event-ID" in printed
    assert f"exact         all {len(SCRIPT)} characters" in printed
    assert all(re.search(rf"longest wait +[\d,]+ ms after {name} was killed", printed) for name in names)
    assert "stored as completed" in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path, how: signal.Signals) -> None:
    process = start(tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("  services"):
            break
    family = psutil.Process(process.pid).children(recursive=True)
    assert family
    os.kill(process.pid, how)
    process.communicate(timeout=60)
    assert process.returncode == 130
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
    assert list(tmp_path.iterdir()) == []
