import asyncio
import subprocess
import sys

import pytest

from kitemesh_cli import console
from kitemesh_cli.console import step


async def test_a_step_says_what_was_done_and_how_long_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    async with step("mongod") as current:
        current.detail = "127.0.0.1:1"
    words = capsys.readouterr().out.split()
    assert words[:2] == ["mongod", "127.0.0.1:1"]
    assert words[-1] == "s"


async def test_a_step_that_takes_long_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(console, "_PATIENCE_S", 0)
    said: asyncio.Queue[str] = asyncio.Queue()
    monkeypatch.setattr(console, "say", said.put_nowait)
    async with asyncio.timeout(5), step("mongod"):
        first = await said.get()
    assert "mongod" in first
    assert "still waiting" in first


def test_a_reader_that_goes_away_does_not_disturb() -> None:
    code = (
        "import sys; from kitemesh_cli.console import say; say('one'); sys.stdin.readline();"
        " [say('x' * 100_000) for _ in range(3)]; sys.stderr.write('done')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "one\n"
        process.stdout.close()
        process.stdin.write("go\n")
        process.stdin.close()
        assert process.stderr.read() == "done"
        assert process.wait(10) == 0
