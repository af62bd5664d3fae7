"""The process that Python tools run in: it loads one function, then forks a child with limits for each call.

Started as `python -I -m kitemesh_tool_executor.nursery ENTRY_POINT`. It has one thread, so forking is safe, and imports
nothing but the standard library and the function. Orders come in on stdin, answers go out on stdout; what the function
prints is dropped. When stdin closes every child is killed.
"""

import ctypes
import gc
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, NoReturn

GROUP: Final = "kitemesh.tools"

RETURNED: Final = "returned"
RAISED: Final = "raised"
TIMED_OUT: Final = "timed_out"
TOO_LARGE: Final = "too_large"
OUT_OF_MEMORY: Final = "out_of_memory"
OUT_OF_CPU: Final = "out_of_cpu"
DIED: Final = "died"
NOT_FORKED: Final = "not_forked"
LOADED: Final = "loaded"
NOT_LOADED: Final = "not_loaded"

WORDS_MAX_CHARACTERS: Final = 500
FILES_MAX: Final = 64
_KINDS: Final = (RETURNED, RAISED, OUT_OF_MEMORY)
_WORDS_MAX_BYTES: Final = 8 * WORDS_MAX_CHARACTERS
_HEAD_BYTES: Final = 9
_CHUNK_BYTES: Final = 64 * 1024
_PR_SET_PDEATHSIG: Final = 1
_MIB: Final = 1024 * 1024


class Order(NamedTuple):
    """One line of stdin after the word `run`, the arguments behind it."""

    number: int
    timeout_ms: int
    memory_mb: int
    cpu_s: int
    max_bytes: int
    size: int


class _Child:
    """One call under way."""

    def __init__(self, order: Order, pid: int, pipe: int) -> None:
        self.order = order
        self.pid = pid
        self.pipe = pipe
        self.due_s = time.monotonic() + order.timeout_ms / 1000
        self.said = bytearray()


def main() -> None:
    """Serve until stdin closes."""
    orders, answers = os.dup(0), os.fdopen(os.dup(1), "wb")
    # From here on nothing that the function prints, or reads, meets the orders and the answers.
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    try:
        function = _load(sys.argv[1])
    except BaseException as exc:  # noqa: BLE001  whatever an import raises, the executor is told
        _say(answers, 0, NOT_LOADED, f"{type(exc).__name__}: {exc}"[:WORDS_MAX_CHARACTERS].encode("utf-8", "replace"))
        return
    # What is there now is never freed: a child that looked at it would only copy it.
    gc.freeze()
    _say(answers, 0, LOADED, b"")
    _Nursery(function, orders, answers).serve()


class _Nursery:
    def __init__(self, function: Callable[..., Any], orders: int, answers: BinaryIO) -> None:
        self._function = function
        self._orders = orders
        self._answers = answers
        self._children: dict[int, _Child] = {}
        self._heard = bytearray()
        self._libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def serve(self) -> None:
        """Take orders and bring answers until nobody gives orders any more."""
        try:
            while self._turn():
                pass
        except BrokenPipeError:
            # The executor is gone.
            return
        finally:
            for child in list(self._children.values()):
                self._bury(child)

    def _turn(self) -> bool:
        now_s = time.monotonic()
        wait_s = min((child.due_s - now_s for child in self._children.values()), default=None)
        poll = select.poll()
        for descriptor in (self._orders, *(child.pipe for child in self._children.values())):
            poll.register(descriptor, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(None if wait_s is None else max(0, wait_s) * 1000 + 1)}
        if self._orders in ready and not self._listen():
            return False
        now_s = time.monotonic()
        for child in list(self._children.values()):
            if child.pipe in ready:
                self._read(child)
            elif child.due_s <= now_s:
                self._bury(child)
                _say(self._answers, child.order.number, TIMED_OUT, b"")
        return True

    # Orders

    def _listen(self) -> bool:
        data = os.read(self._orders, _CHUNK_BYTES)
        self._heard += data
        while True:
            line, end, rest = bytes(self._heard).partition(b"\n")
            if not end:
                break
            word, *numbers = line.split()
            if word == b"kill":
                del self._heard[: len(line) + 1]
                child = self._children.get(int(numbers[0]))
                if child is not None:
                    self._bury(child)
                continue
            order = Order(*map(int, numbers))
            if len(rest) < order.size:
                break
            del self._heard[: len(line) + 1 + order.size]
            self._fork(order, rest[: order.size])
        return bool(data)

    def _fork(self, order: Order, arguments: bytes) -> None:
        try:
            mine, its = os.pipe()
        except OSError:
            _say(self._answers, order.number, NOT_FORKED, b"")
            return
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            os.close(mine)
            os.close(its)
            _say(self._answers, order.number, NOT_FORKED, b"")
            return
        if pid == 0:
            self._be_child(order, arguments, its, parent)
        os.close(its)
        self._children[order.number] = _Child(order, pid, mine)

    # Answers

    def _read(self, child: _Child) -> None:
        data = os.read(child.pipe, _CHUNK_BYTES)
        child.said += data
        number, head = child.order.number, child.said[:_HEAD_BYTES]
        if len(head) == _HEAD_BYTES:
            kind, size = _KINDS[min(head[0], len(_KINDS) - 1)], int.from_bytes(head[1:], "big")
            if size > (child.order.max_bytes if kind == RETURNED else _WORDS_MAX_BYTES):
                self._bury(child)
                return _say(self._answers, number, TOO_LARGE, b"")
            if len(child.said) >= _HEAD_BYTES + size:
                self._bury(child)
                return _say(self._answers, number, kind, bytes(child.said[_HEAD_BYTES : _HEAD_BYTES + size]))
        if not data:
            self._note_death(child)
        return None

    def _note_death(self, child: _Child) -> None:
        status = self._bury(child)
        cause = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        _say(self._answers, child.order.number, OUT_OF_CPU if cause == signal.SIGXCPU else DIED, b"")

    def _bury(self, child: _Child) -> int:
        """Kill a child with all that it started, and return how it ended."""
        del self._children[child.order.number]
        os.close(child.pipe)
        # It may have ended by itself just now, but what it started has not.
        _kill_group(child.pid)
        _, status = os.waitpid(child.pid, 0)
        return status

    # The child

    def _be_child(self, order: Order, arguments: bytes, pipe: int, parent: int) -> NoReturn:
        code = 1
        try:
            os.setsid()
            _close_all_but(pipe)
            if self._libc is not None:
                self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != parent:
                    os._exit(1)
            _limit(order)
            kind, content = _call(self._function, arguments)
            _write_all(pipe, bytes([kind]) + len(content).to_bytes(8, "big"))
            _write_all(pipe, content)
            code = 0
        finally:
            os._exit(code)


def _load(name: str) -> Callable[..., Any]:
    found = list(entry_points(group=GROUP, name=name))
    if not found:
        raise LookupError(f"no entry point {name!r} in the group {GROUP}")
    function = found[0].load()
    if not callable(function):
        raise TypeError("it is not a function")
    loaded: Callable[..., Any] = function
    return loaded


def _call(function: Callable[..., Any], arguments: bytes) -> tuple[int, bytes]:
    try:
        result = function(**json.loads(arguments))
        text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, allow_nan=False)
        return _KINDS.index(RETURNED), text.encode()
    except MemoryError:
        return _KINDS.index(OUT_OF_MEMORY), b""
    except BaseException as exc:  # noqa: BLE001  SystemExit is the function's failure as well
        # Exactly these two are how a tool's author speaks to the model; others quote what is nobody's business.
        words = str(exc) if type(exc) in (ValueError, LookupError) else ""
        content = f"{type(exc).__name__[:100]}\n{words[:WORDS_MAX_CHARACTERS]}".encode("utf-8", "replace")
        return _KINDS.index(RAISED), content


def _limit(order: Order) -> None:
    _set_limit("RLIMIT_CORE", 0)
    _set_limit("RLIMIT_FSIZE", 0)
    _set_limit("RLIMIT_NOFILE", FILES_MAX)
    _set_limit("RLIMIT_CPU", order.cpu_s, order.cpu_s + 1)
    own = _own_bytes()
    if own is not None:
        _set_limit("RLIMIT_AS", own + order.memory_mb * _MIB)


def _set_limit(name: str, soft: int, hard: int | None = None) -> None:
    which = getattr(resource, name, None)
    if which is None:
        return
    _, most = resource.getrlimit(which)
    wanted = soft if hard is None else hard
    if most != resource.RLIM_INFINITY:
        soft, wanted = min(soft, most), min(wanted, most)
    resource.setrlimit(which, (soft, wanted))


def _own_bytes() -> int | None:
    """Return the address space in use; `None` where the system does not tell, and has no such limit either."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return None
    return pages * resource.getpagesize()


def _close_all_but(pipe: int) -> None:
    os.closerange(3, pipe)
    os.closerange(pipe + 1, os.sysconf("SC_OPEN_MAX"))


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            # It has no group of its own yet, or has ended.
            continue


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _say(answers: BinaryIO, number: int, kind: str, content: bytes) -> None:
    answers.write(b"%d %b %d\n%b" % (number, kind.encode(), len(content), content))
    answers.flush()


if __name__ == "__main__":
    main()
