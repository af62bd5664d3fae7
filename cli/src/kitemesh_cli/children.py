"""Processes kept running: each is started, watched, started again when it dies, and stopped with a bound.

It knows neither what a child does nor in which order children depend on each other.
"""

import asyncio
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple, Self

from kitemesh_cli.failures import EX_CONFIG, Failed
from kitemesh_cli.processes import describe_exit, kill_group, tail

FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 5.0
HEALTHY_S: Final = 30.0
"""A child that lived for this long is forgiven what came before: its next pause is the first again."""

FIRST_TRIES: Final = 3
"""A child that dies so often before it was ever ready will not get there."""

_PROBE_EVERY_S: Final = 0.03


class ChildSpec(NamedTuple):
    """A process to keep.

    Attributes:
        start: Starts it, on the same ports every time.
        is_ready: Whether it serves; asked again and again after each start.
        log: Where its output goes.

    """

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    is_ready: Callable[[], Awaitable[bool]]
    log: Path


class _Child:
    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.process: subprocess.Popen[bytes] | None = None
        self.exited = asyncio.Event()
        self.wanted = True
        self.first_ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.keeper: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def ask_to_end(self) -> None:
        if self.process is not None:
            self.process.terminate()

    def kill(self) -> None:
        """End it and whatever it started."""
        if self.process is not None:
            kill_group(self.process)

    async def give_up(self) -> None:
        """Stop keeping it."""
        if self.keeper is not None:
            self.keeper.cancel()
            await asyncio.gather(self.keeper, return_exceptions=True)


class Children:
    """All the children of a supervisor. Leaving the context kills what is left."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._children: dict[str, _Child] = {}

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._note_exits)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()
        for child in self._children.values():
            await child.give_up()
            if child.process is not None:
                child.process.wait()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)

    @property
    def names(self) -> set[str]:
        """Every child's name."""
        return set(self._children)

    def pid(self, name: str) -> int | None:
        """Return a child's process id; `None` while it is not running."""
        child = self._children[name]
        return child.process.pid if child.process is not None and child.is_running else None

    async def start(self, spec: ChildSpec, *, timeout_s: float) -> None:
        """Start a child and return once it is ready; from then on it is kept running.

        Raises:
            Failed: It died several times, refused its settings or was not ready in time. Ends with its last lines.

        """
        child = self._children[spec.name] = _Child(spec)
        child.keeper = asyncio.create_task(self._keep(child), name=f"keep-{spec.name}")
        try:
            async with asyncio.timeout(timeout_s):
                await child.first_ready
        except TimeoutError as exc:
            raise Failed(_with_tail(f"{spec.name} was not ready within {timeout_s:.0f} s", spec)) from exc

    def settle(self) -> None:
        """Let every child run that runs; none is started again from now on."""
        for child in self._children.values():
            child.wanted = False

    async def stop(self, names: Iterable[str], *, grace_s: float) -> None:
        """End children: ask all at once, wait, kill who is still there."""
        children = [self._children[name] for name in names if name in self._children]
        running = [child for child in children if child.is_running]
        for child in children:
            child.wanted = False
        for child in running:
            child.ask_to_end()
        try:
            async with asyncio.timeout(grace_s):
                for child in running:
                    await child.exited.wait()
        except TimeoutError:
            for child in running:
                if child.is_running:
                    self._say(f"{child.spec.name} did not stop within {grace_s:.0f} s and is killed")
                    child.kill()
            for child in running:
                await child.exited.wait()
        for child in running:
            # It has just ended; what it had started may not have.
            child.kill()
        for child in children:
            await child.give_up()

    def kill(self) -> None:
        """End every child now."""
        for child in self._children.values():
            child.wanted = False
            if child.is_running:
                child.kill()

    def _note_exits(self) -> None:
        # Signals coalesce, so every child is looked at.
        for child in self._children.values():
            if child.process is not None and child.process.poll() is not None:
                child.exited.set()

    async def _keep(self, child: _Child) -> None:
        name, pause_s, tries = child.spec.name, FIRST_PAUSE_S, 0
        while child.wanted:
            started = time.monotonic()
            child.exited.clear()
            try:
                process = child.process = child.spec.start()
            except (OSError, Failed) as exc:
                problem, hopeless = f"cannot be started: {exc}", True
            else:
                await self._outlive(child)
                # Whatever it had started itself goes with it.
                child.kill()
                problem, hopeless = describe_exit(process), process.returncode == EX_CONFIG
            if not child.wanted:
                return
            tries += 1
            if not child.first_ready.done() and (hopeless or tries >= FIRST_TRIES):
                child.first_ready.set_exception(Failed(_with_tail(f"{name} {problem}", child.spec)))
                return
            lived_s = time.monotonic() - started
            if lived_s >= HEALTHY_S:
                pause_s = FIRST_PAUSE_S
            self._say(f"{name} {problem} after {lived_s:.1f} s; it is started again in {pause_s:.1f} s")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _outlive(self, child: _Child) -> None:
        watching = asyncio.create_task(self._watch_readiness(child), name=f"ready-{child.spec.name}")
        try:
            await child.exited.wait()
        finally:
            watching.cancel()

    async def _watch_readiness(self, child: _Child) -> None:
        started = time.monotonic()
        while not await child.spec.is_ready():  # noqa: ASYNC110  another process sets no event here
            await asyncio.sleep(_PROBE_EVERY_S)
        if not child.wanted or child.first_ready.cancelled():
            return
        if child.first_ready.done():
            self._say(f"{child.spec.name} is ready again ({time.monotonic() - started:.1f} s)")
        else:
            child.first_ready.set_result(None)


def _with_tail(sentence: str, spec: ChildSpec) -> str:
    lines = [f"    {line}" for line in tail(spec.log, 10)]
    return "\n".join([f"{sentence}; the end of {spec.log}:", *lines]) if lines else sentence
