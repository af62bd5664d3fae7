"""Tools that are Python functions which the operator installed, each in a process of its own that forks for each call.

It starts those processes, talks to them and says in words how a call ended. What a call may use is `nursery`'s
business.
"""

import asyncio
import math
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, NamedTuple, Self

import structlog

from kitemesh_contracts.errors import Bug, ErrorCode
from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.catalog_tools import PythonTool
from kitemesh_runtime.failpoints import reach
from kitemesh_runtime.settings import TOOL_PREFIX
from kitemesh_tool_executor import nursery
from kitemesh_tool_executor.tool import Call, CallFailed

CHILDREN_MAX: Final = 32
"""Calls of one function at once; more wait."""
LOAD_TIMEOUT_S: Final = 30.0
STOP_S: Final = 2.0
COMMAND: Final = (sys.executable, "-I", "-m", "kitemesh_tool_executor.nursery")
ENVIRONMENT: Final = ("PATH", "LANG", "TZ")
"""What a function sees of the service's environment, besides what begins with `TOOL_PREFIX`."""

_LIMIT_BYTES: Final = 64 * 1024
_MS: Final = 1000.0

log: Final = structlog.get_logger()


class _Answer(NamedTuple):
    """How a call ended, as the nursery says it."""

    kind: str
    content: bytes


class _Nursery:
    """One function's process, started when it is needed and again when it has died."""

    def __init__(self, entry_point: str, command: Sequence[str]) -> None:
        self._entry_point: Final = entry_point
        self._command: Final = command
        self._places: Final = asyncio.Semaphore(CHILDREN_MAX)
        self._starting: Final = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[_Answer]] = {}
        self._last = 0
        self._closed = False

    async def run(self, call: Call, definition: PythonTool) -> _Answer:
        """Run the function once.

        Raises:
            CallFailed: It was not asked, or its process died under it.

        """
        try:
            async with asyncio.timeout(call.timeout_s) as waiting, self._places:
                process = await self._started()
                # From here on the nursery keeps the time, for it knows whether the function ran.
                left_s = (waiting.when() or 0.0) - asyncio.get_running_loop().time()
                waiting.reschedule(None)
                return await self._ask(process, call, definition, max(0.0, left_s))
        except TimeoutError as exc:
            raise CallFailed(ErrorCode.TOOL_TIMEOUT, "The tool had no room for the call in time", sent=False) from exc

    async def _ask(
        self, process: asyncio.subprocess.Process, call: Call, definition: PythonTool, left_s: float
    ) -> _Answer:
        assert process.stdin is not None  # noqa: S101  it was started with a pipe
        self._last += 1
        number, arguments = self._last, call.arguments.encode()
        answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        limits = (math.ceil(left_s * _MS), definition.memory_mb, math.ceil(definition.cpu_s))
        order = nursery.Order(number, *limits, definition.max_result_bytes, len(arguments))
        try:
            process.stdin.write(b"run %b\n%b" % (" ".join(map(str, order)).encode(), arguments))
            await reach("tool.after_send")
            return await answer
        finally:
            if self._waiting.pop(number, None) is not None and not process.stdin.is_closing():
                process.stdin.write(b"kill %d\n" % number)

    async def _started(self) -> asyncio.subprocess.Process:
        async with self._starting:
            if self._closed:
                raise CallFailed(ErrorCode.TOOL_FAILED, "The tool is being stopped", sent=False, again=True)
            if self._process is None or self._reader is None or self._reader.done():
                await self._stop()
                self._process = await self._start()
            return self._process

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            self._entry_point,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if _may_know(name)},
            cwd="/",
            # A Ctrl-C is for the service, which may let its calls end.
            start_new_session=True,
            limit=_LIMIT_BYTES,
        )
        assert process.stdout is not None  # noqa: S101  it was started with a pipe
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                _, first = await _read(process.stdout)
        except (TimeoutError, EOFError, ValueError) as exc:
            await _end(process)
            first = _Answer(nursery.NOT_LOADED, type(exc).__name__.encode())
        except BaseException:
            await _end(process)
            raise
        if first.kind != nursery.LOADED:
            log.error("tool.not_loaded", entry_point=self._entry_point, reason=first.content.decode(errors="replace"))
            await _end(process)
            raise CallFailed(ErrorCode.TOOL_FAILED, "The tool could not be loaded", sent=False)
        log.info("tool.loaded", entry_point=self._entry_point, pid=process.pid)
        self._reader = asyncio.create_task(self._listen(process.stdout), name=f"nursery:{self._entry_point}")
        return process

    async def _listen(self, stream: asyncio.StreamReader) -> None:
        try:
            while True:
                number, answer = await _read(stream)
                waiting = self._waiting.pop(number, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)
        except (EOFError, ValueError, OSError) as exc:
            log.warning("tool.process_died", entry_point=self._entry_point, reason=type(exc).__name__)
        finally:
            for waiting in self._waiting.values():
                if not waiting.done():
                    failed = CallFailed(ErrorCode.TOOL_FAILED, "The tool's process died", sent=True, again=True)
                    waiting.set_exception(failed)
            self._waiting.clear()

    async def close(self) -> None:
        """End the process and with it its calls, for good."""
        async with self._starting:
            self._closed = True
            await self._stop()

    async def _stop(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait({self._reader})
            self._reader = None
        if self._process is not None:
            await _end(self._process)
            self._process = None


class _Function:
    """One tool: a function under the limits of its definition."""

    def __init__(self, definition: PythonTool, home: _Nursery) -> None:
        self._definition: Final = definition
        self._home: Final = home

    async def run(self, call: Call) -> str:
        """Run the function once."""
        answer = await self._home.run(call, self._definition)
        if answer.kind == nursery.RETURNED:
            return answer.content.decode()
        raise _failure(answer, self._definition)


class PythonKind:
    """Makes tools of installed functions, and owns their processes.

    Args:
        command: Starts a nursery; the entry point's name comes behind it.

    """

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._command: Final = command
        self._homes: dict[str, _Nursery] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.gather(*(home.close() for home in self._homes.values()))

    def tool(self, name: str, catalog: Catalog) -> _Function:
        """Return the tool of that name."""
        definition = catalog.tools[name]
        if not isinstance(definition, PythonTool):
            raise Bug("a tool of another kind")
        home = self._homes.get(definition.entry_point)
        if home is None:
            home = self._homes[definition.entry_point] = _Nursery(definition.entry_point, self._command)
        return _Function(definition, home)


def _failure(answer: _Answer, definition: PythonTool) -> CallFailed:
    """Say how a call failed.

    A function that raised has answered, and says by it that it had no effect; one that was killed has not.
    """
    match answer.kind:
        case nursery.RAISED:
            name, _, words = answer.content.decode(errors="replace").partition("\n")
            message = f"The tool failed: {words or name}"
            return CallFailed(ErrorCode.TOOL_FAILED, message, sent=False)
        case nursery.NOT_FORKED:
            return CallFailed(ErrorCode.TOOL_FAILED, "The tool could not be started", sent=False, again=True)
        case nursery.TIMED_OUT:
            return CallFailed(ErrorCode.TOOL_TIMEOUT, "The tool did not answer in time", sent=True)
        case nursery.OUT_OF_CPU:
            message = f"The tool used more than {definition.cpu_s:g} s of CPU time"
        case nursery.OUT_OF_MEMORY:
            message = f"The tool used more than {definition.memory_mb} MiB of memory"
        case nursery.TOO_LARGE:
            # It ran to its end: what it did is known to be done, and only its words are missing.
            message = f"The result is larger than {definition.max_result_bytes} bytes"
            return CallFailed(ErrorCode.TOOL_FAILED, message, sent=False)
        case _:
            message = "The tool's process died"
    return CallFailed(ErrorCode.TOOL_FAILED, message, sent=True)


def _may_know(variable: str) -> bool:
    return variable in ENVIRONMENT or variable.startswith(TOOL_PREFIX)


async def _read(stream: asyncio.StreamReader) -> tuple[int, _Answer]:
    """Read one answer.

    Raises:
        EOFError: The process is gone.
        ValueError: It speaks another language.

    """
    line = await stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    number, kind, size = line.split()
    return int(number), _Answer(kind.decode(), await stream.readexactly(int(size)))


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process; what it forked ends with it."""
    assert process.stdin is not None  # noqa: S101  it was started with a pipe
    process.stdin.close()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
