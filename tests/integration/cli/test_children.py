"""Supervision, with trivial children: what they do is said in a few words of Python."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from kitemesh_cli import children as children_module
from kitemesh_cli.children import Children, ChildSpec
from kitemesh_cli.failures import Failed
from kitemesh_cli.processes import spawn

READY = "import pathlib, sys; pathlib.Path(sys.argv[1]).touch(); "
WAIT = "import signal; signal.pause()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "


class Lines:
    """What the supervisor said, to be waited for."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._queue: asyncio.Queue[str] = asyncio.Queue()

    def say(self, line: str) -> None:
        self.all.append(line)
        self._queue.put_nowait(line)

    async def expect(self, words: str) -> str:
        async with asyncio.timeout(10):
            while words not in (line := await self._queue.get()):
                pass
        return line


def exists(path: Path) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return await asyncio.to_thread(path.exists)

    return look


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
async def children(lines: Lines) -> AsyncIterator[Children]:
    async with Children(lines.say) as children:
        yield children


def spec(folder: Path, code: str, name: str = "child") -> ChildSpec:
    """Describe a child that is ready once its file is there; each start removes the file first."""
    ready, log = folder / f"{name}.ready", folder / f"{name}.log"

    def start() -> subprocess.Popen[bytes]:
        ready.unlink(missing_ok=True)
        return spawn([sys.executable, "-S", "-c", code, str(ready)], log)

    return ChildSpec(name, start, exists(ready), log)


async def test_a_child_that_is_killed_is_started_again(children: Children, lines: Lines, tmp_path: Path) -> None:
    await children.start(spec(tmp_path, READY + WAIT), timeout_s=10)
    first = children.pid("child")
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert "was ended by SIGKILL" in await lines.expect("started again in 0.2 s")
    await lines.expect("child is ready again")
    assert children.pid("child") not in {None, first}


async def test_pauses_between_starts_grow_up_to_a_bound_and_shrink_after_a_healthy_time(
    children: Children, lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children_module, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(children_module, "LONGEST_PAUSE_S", 0.04)
    code = READY + f"import os; os._exit(3) if os.path.exists({str(tmp_path / 'ill')!r}) else None; " + WAIT
    await children.start(spec(tmp_path, code), timeout_s=10)
    (tmp_path / "ill").touch()
    os.kill(children.pid("child") or 0, signal.SIGTERM)
    said = [await lines.expect("started again") for _ in range(5)]
    assert [line.rpartition("in ")[2] for line in said] == ["0.0 s"] * 5
    assert "ended with status 3" in said[-1]
    (tmp_path / "ill").unlink()
    await lines.expect("ready again")


async def test_a_child_that_never_gets_ready_fails_the_start_with_its_last_words(
    children: Children, tmp_path: Path
) -> None:
    with pytest.raises(Failed, match="child ended with status 5") as caught:
        await children.start(spec(tmp_path, "print('no such port'); raise SystemExit(5)"), timeout_s=10)
    assert "no such port" in str(caught.value)


async def test_wrong_settings_are_not_tried_again(children: Children, lines: Lines, tmp_path: Path) -> None:
    with pytest.raises(Failed, match="status 78"):
        await children.start(spec(tmp_path, "raise SystemExit(78)"), timeout_s=10)
    assert lines.all == []


async def test_a_start_that_hangs_is_given_up(children: Children, tmp_path: Path) -> None:
    with pytest.raises(Failed, match="not ready within 0 s"):
        await children.start(spec(tmp_path, WAIT), timeout_s=0.3)


async def test_a_program_that_is_not_there_fails_the_start(children: Children, tmp_path: Path) -> None:
    log = tmp_path / "log"
    missing = ChildSpec("child", lambda: spawn([str(tmp_path / "nothing")], log), exists(tmp_path / "x"), log)
    with pytest.raises(Failed, match="cannot be started"):
        await children.start(missing, timeout_s=10)


async def test_a_stop_asks_first_and_starts_nothing_again(children: Children, lines: Lines, tmp_path: Path) -> None:
    await children.start(spec(tmp_path, READY + WAIT), timeout_s=10)
    process = psutil.Process(children.pid("child") or 0)
    async with asyncio.timeout(10):
        await children.stop({"child", "nobody"}, grace_s=10)
    assert not process.is_running()
    assert children.pid("child") is None
    assert lines.all == []


async def test_who_does_not_stop_in_time_is_killed(children: Children, lines: Lines, tmp_path: Path) -> None:
    await children.start(spec(tmp_path, STUBBORN + READY + WAIT), timeout_s=10)
    process = psutil.Process(children.pid("child") or 0)
    async with asyncio.timeout(10):
        await children.stop({"child"}, grace_s=0.1)
    assert not process.is_running()
    assert lines.all == ["child did not stop within 0 s and is killed"]


async def test_killing_everything_cuts_a_patient_stop_short(children: Children, tmp_path: Path) -> None:
    await children.start(spec(tmp_path, STUBBORN + READY + WAIT), timeout_s=10)
    stop = asyncio.create_task(children.stop({"child"}, grace_s=3600))
    await asyncio.sleep(0)
    children.kill()
    async with asyncio.timeout(10):
        await stop
    assert children.pid("child") is None


async def test_what_a_child_started_goes_with_it(children: Children, lines: Lines, tmp_path: Path) -> None:
    note = tmp_path / "grandchild"
    code = (
        "import os, subprocess, sys; "
        f"child = subprocess.Popen([sys.executable, '-S', '-c', {WAIT!r}]); "
        f"open({str(note)!r}, 'w').write(str(child.pid)); " + READY + WAIT
    )
    await children.start(spec(tmp_path, code), timeout_s=10)
    grandchild = psutil.Process(int(note.read_text()))
    os.kill(children.pid("child") or 0, signal.SIGKILL)
    await lines.expect("started again")
    assert await asyncio.to_thread(psutil.wait_procs, [grandchild], 5) == ([grandchild], [])


async def test_leaving_kills_what_is_left(lines: Lines, tmp_path: Path) -> None:
    async with Children(lines.say) as children:
        await children.start(spec(tmp_path, STUBBORN + READY + WAIT), timeout_s=10)
        process = psutil.Process(children.pid("child") or 0)
    assert not process.is_running()


@pytest.mark.requirement("start:leaves-nothing")
def test_a_child_dies_with_its_parent_even_when_that_is_killed(tmp_path: Path) -> None:
    parent_code = (
        "from pathlib import Path; from kitemesh_cli.processes import spawn; import sys\n"
        f"child = spawn([sys.executable, '-S', '-c', {WAIT!r}], Path({str(tmp_path / 'log')!r}))\n"
        "print(child.pid, flush=True)\n"
        f"{WAIT}"
    )
    parent = subprocess.Popen([sys.executable, "-c", parent_code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent.stdout:
        child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    assert psutil.wait_procs([child], timeout=10) == ([child], [])
