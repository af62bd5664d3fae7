"""Python tools in their processes: what a call may use is enforced, and how it ended is told."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from integration.tool_executor import hostile_tools
from kitemesh_contracts.errors import ErrorCode
from kitemesh_runtime.catalog import Catalog
from kitemesh_tool_executor.tool import Call, CallFailed
from kitemesh_tool_executor.tool_python import PythonKind

FUNCTIONS = [
    name for name in dir(hostile_tools) if name not in ("Any", "Path", "os", "sys", "time") and not name.startswith("_")
]
START = (
    "import sys; sys.path.insert(0, {!r}); sys.argv[0:1] = []; from kitemesh_tool_executor.nursery import main; main()"
)

Run = Callable[..., Awaitable[str]]


@pytest.fixture
def installed(tmp_path: Path) -> list[str]:
    """Return the command of a nursery that finds the hostile functions."""
    (tmp_path / "hostile_tools.py").write_text(Path(hostile_tools.__file__).read_text())
    package = tmp_path / "hostile-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile\nVersion: 1.0\n")
    names = "\n".join(f"{name} = hostile_tools:{name}" for name in [*FUNCTIONS, "absent"])
    (package / "entry_points.txt").write_text(f"[kitemesh.tools]\n{names}\n")
    return [sys.executable, "-I", "-c", START.format(str(tmp_path)), "nursery"]


@pytest.fixture
async def run(installed: list[str]) -> AsyncIterator[Run]:
    async with PythonKind(installed) as kind:
        yield runner(kind)


def runner(kind: PythonKind) -> Run:
    def start(function: str, arguments: dict[str, Any] | None = None, *, timeout_s: float = 20.0, **limits: Any) -> Any:
        definition = {"kind": "python", "entry_point": function, **limits}
        catalog = Catalog.model_validate({"providers": {}, "models": {}, "tools": {"t": definition}})
        call = Call("call-1", "turn-1", "acme", json.dumps(arguments or {}), "once", timeout_s)
        return kind.tool("t", catalog).run(call)

    return start


async def failure(running: Awaitable[str]) -> CallFailed:
    async with asyncio.timeout(20):
        with pytest.raises(CallFailed) as caught:
            await running
    return caught.value


async def test_a_function_gets_its_arguments_by_name_and_its_value_comes_back_as_json(run: Run) -> None:
    arguments = {"a": 1, "ключ": ["ü", None, {"b": 2.5}]}
    assert json.loads(await run("echo", arguments)) == arguments


@pytest.mark.parametrize("text", ["", "plain", "two\nlines\x00", "ü" * 100_000])
async def test_a_text_comes_back_as_it_is(run: Run, text: str) -> None:
    assert await run("say", {"text": text}) == text


async def test_what_a_function_prints_never_reaches_the_result(run: Run) -> None:
    assert [await run("shout", {"text": text}) for text in ("a", "b")] == ["a", "b"]


async def test_several_calls_run_at_once_in_processes_of_their_own(run: Run) -> None:
    async with asyncio.timeout(20):
        found = [json.loads(each) for each in await asyncio.gather(*(run("pid") for _ in range(8)))]
    own, parents = zip(*found, strict=True)
    assert len(set(own)) == 8
    assert len(set(parents)) == 1


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("value", "The tool failed: no such city"),
        ("lookup", "The tool failed: no such city"),
        ("key", "The tool failed: KeyError"),
        ("runtime", "The tool failed: RuntimeError"),
    ],
)
async def test_an_exception_is_told_by_its_type_and_words_only_where_they_are_meant_for_the_model(
    run: Run, kind: str, message: str
) -> None:
    failed = await failure(run("fail", {"kind": kind, "words": "no such city"}))
    assert (failed.code, failed.message, failed.sent, failed.again) == (ErrorCode.TOOL_FAILED, message, False, False)


async def test_long_words_of_an_exception_are_cut(run: Run) -> None:
    failed = await failure(run("fail", {"kind": "value", "words": "ü" * 5000}))
    assert failed.message == "The tool failed: " + "ü" * 500


@pytest.mark.parametrize("arguments", [{"wrong": 1}, {}])
async def test_arguments_that_the_function_does_not_take_are_its_failure(run: Run, arguments: dict[str, Any]) -> None:
    assert (await failure(run("say", arguments))).message == "The tool failed: TypeError"


@pytest.mark.parametrize(
    ("kind", "message"),
    [("set", "TypeError"), ("surrogate", "UnicodeEncodeError"), ("nan", "Out of range float values")],
)
async def test_a_value_that_json_cannot_hold_is_a_failure(run: Run, kind: str, message: str) -> None:
    assert message in (await failure(run("odd", {"kind": kind}))).message


async def test_leaving_without_an_answer_is_a_failure_and_the_next_call_works(run: Run) -> None:
    assert (await failure(run("leave", {"how": "exit"}))).message == "The tool failed: SystemExit"
    for how in ("now", "abort"):
        died = await failure(run("leave", {"how": how}))
        assert (died.message, died.sent) == ("The tool's process died", True)
    assert await run("say", {"text": "still here"}) == "still here"


@pytest.mark.requirement("tool:result-limit")
async def test_a_result_may_be_as_large_as_its_limit_and_no_larger(run: Run) -> None:
    assert len(await run("flood", {"size": 1000}, max_result_bytes=1000)) == 1000
    failed = await failure(run("flood", {"size": 50_000_000}, max_result_bytes=1000))
    assert failed.message == "The result is larger than 1000 bytes"


async def test_memory_is_limited_beyond_what_the_process_has_by_itself(run: Run) -> None:
    assert await run("eat", {"mib": 16}, memory_mb=64) == str(16 * 1024 * 1024)
    failed = await failure(run("eat", {"mib": 200}, memory_mb=64))
    assert (failed.message, failed.sent) == ("The tool used more than 64 MiB of memory", True)


async def test_cpu_time_is_limited(run: Run) -> None:
    failed = await failure(run("spin", cpu_s=1))
    assert (failed.message, failed.sent) == ("The tool used more than 1 s of CPU time", True)


async def test_a_call_that_takes_too_long_is_killed_with_all_that_it_started(run: Run) -> None:
    mark = f"mark-{os.getpid()}-{time.time_ns()}"
    failed = await failure(run("sleep", {"mark": mark}, timeout_s=0.7))
    assert (failed.code, failed.sent) == (ErrorCode.TOOL_TIMEOUT, True)
    await gone(mark)


async def test_a_call_that_is_cancelled_is_killed_at_once(run: Run) -> None:
    mark = f"mark-{os.getpid()}-{time.time_ns()}"
    running = asyncio.ensure_future(run("sleep", {"mark": mark}))
    async with asyncio.timeout(10):
        while len(marked(mark)) < 3:
            await asyncio.to_thread(psutil.pids)
        running.cancel()
        await asyncio.wait({running})
    await gone(mark)
    assert await run("say", {"text": "x"}) == "x"


async def test_a_fork_bomb_ends_with_its_time(run: Run, tmp_path: Path) -> None:
    failed = await failure(run("bomb", timeout_s=0.3, memory_mb=16))
    assert failed.code == ErrorCode.TOOL_TIMEOUT
    # The function's own process is left, and nothing that it forked.
    await gone(str(tmp_path), but=1)


async def test_nothing_is_written_to_files(run: Run, tmp_path: Path) -> None:
    failed = await failure(run("write", {"path": str(tmp_path / "file")}))
    assert failed.message == "The tool failed: OSError"
    assert (tmp_path / "file").read_bytes() == b""


async def test_few_files_may_be_open_and_none_is_inherited(run: Run, tmp_path: Path) -> None:
    assert int(await run("open_many", {"path": str(tmp_path)})) < 64
    inherited = json.loads(await run("files"))
    # The way back, and nothing else.
    assert [each.partition(":")[0] for each in inherited] == ["pipe"]


async def test_the_environment_is_scrubbed(monkeypatch: pytest.MonkeyPatch, installed: list[str]) -> None:
    monkeypatch.setenv("KITEMESH_MONGO_URL", "mongodb://secret")
    monkeypatch.setenv("KITEMESH_TOOL_REGION", "eu")
    async with PythonKind(installed) as kind:
        seen = json.loads(await runner(kind)("environment"))
    # The interpreter itself adds this one where no locale is set.
    seen.pop("LC_CTYPE", None)
    assert set(seen) <= {"PATH", "LANG", "TZ", "KITEMESH_TOOL_REGION"}
    assert seen["KITEMESH_TOOL_REGION"] == "eu"


async def test_when_the_process_is_killed_its_calls_fail_and_the_next_one_starts_it_again(run: Run) -> None:
    (first, nursery) = json.loads(await run("pid"))
    assert first != nursery
    # The children of the same function's process go with it.
    waiting = [asyncio.ensure_future(run("pid")) for _ in range(4)]
    os.kill(nursery, signal.SIGKILL)
    async with asyncio.timeout(10):
        ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(each, str) or (isinstance(each, CallFailed) and each.sent) for each in ended)
    assert json.loads(await run("pid"))[1] != nursery


@pytest.mark.parametrize("function", ["absent", "nobody"])
async def test_a_function_that_cannot_be_loaded_was_not_sent(run: Run, function: str) -> None:
    failed = await failure(run(function))
    assert (failed.message, failed.sent, failed.again) == ("The tool could not be loaded", False, False)


async def test_leaving_the_kind_ends_its_processes(installed: list[str]) -> None:
    async with PythonKind(installed) as kind:
        _, nursery = json.loads(await runner(kind)("pid"))
        running = asyncio.ensure_future(runner(kind)("sleep"))
    await failure(running)
    assert not psutil.pid_exists(nursery)


async def test_the_tools_that_ship_are_installed_and_say_that_they_pretend() -> None:
    async with PythonKind() as kind:
        run = runner(kind)
        first, second, gone = await asyncio.gather(
            run("weather", {"city": "Oslo"}), run("weather", {"city": "oslo "}), run("delete_record", {"id": "r1"})
        )
    assert json.loads(first)["sky"] == json.loads(second)["sky"]
    assert "made up" in first
    assert json.loads(gone)["deleted"] == "r1"


async def gone(mark: str, *, but: int = 0) -> None:
    """Return once all but so many are dead: a signal that was sent takes its time."""
    async with asyncio.timeout(10):
        while len([each for each in marked(mark) if alive(each)]) > but:
            await asyncio.to_thread(psutil.pids)


def marked(mark: str) -> list[psutil.Process]:
    return [each for each in psutil.process_iter() if any(mark in word for word in cmdline(each))]


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []
