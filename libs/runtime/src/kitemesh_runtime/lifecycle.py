"""How a service process starts and stops: settings, logs, signals, two speeds, exit codes.

Exit codes: 0 stopped on request, 1 something died, 78 the settings are wrong (EX_CONFIG). The first SIGTERM or SIGINT
asks for a drain, the second one for an immediate end.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Final, NoReturn, TypeVar

import structlog
import uvloop

from kitemesh_runtime import logs
from kitemesh_runtime.metrics import LOOP_LAG
from kitemesh_runtime.settings import Settings, SettingsError, load, render

S = TypeVar("S", bound=Settings)

EX_CONFIG: Final = 78
_LAG_TICK_S: Final = 1.0

log: Final = structlog.get_logger()


class Life:
    """One process's life, as its `app.py` sees it.

    Attributes:
        replica: Name of this process among its peers.
        stopping: Set by the first signal: stop taking work, finish what runs.
        stopping_now: Set by the second signal.

    """

    def __init__(self, replica: str, tasks: asyncio.TaskGroup) -> None:
        self.replica = replica
        self.stopping = asyncio.Event()
        self.stopping_now = asyncio.Event()
        self._tasks = tasks
        self._started = False

    @property
    def is_ready(self) -> bool:
        """Whether the process has started and is not stopping."""
        return self._started and not self.stopping.is_set()

    def ready(self) -> None:
        """Say that everything is up; called last."""
        self._started = True
        log.info("service.started", pid=os.getpid())

    @asynccontextmanager
    async def background(self, **works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Run tasks, named as they are given, while inside; the death of one is the process's."""
        tasks = [self._tasks.create_task(work, name=name) for name, work in works.items()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def signal(self) -> None:
        """Take one request to stop."""
        if self.stopping.is_set():
            self.stopping_now.set()
            log.warning("service.stop_forced")
        else:
            self.stopping.set()
            log.info("service.stop_requested")


async def watch_loop() -> None:
    """Measure how late the event loop is."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LAG_TICK_S
        await asyncio.sleep(_LAG_TICK_S)
        LOOP_LAG.set(max(0.0, loop.time() - due))


async def live(settings: S, replica: str, serve: Callable[[S, Life], Awaitable[None]]) -> None:
    """Run `serve` until it returns, with signals and background tasks around it."""
    async with asyncio.TaskGroup() as tasks:
        life = Life(replica, tasks)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, life.signal)
        async with life.background(loop_lag=watch_loop()):
            await serve(settings, life)


def run(service: str, model: type[S], serve: Callable[[S, Life], Awaitable[None]]) -> NoReturn:
    """Be the whole `main()` of a service; ends the process.

    Args:
        service: Its name, such as `gateway`.
        model: Its settings.
        serve: Its composition root: opens everything, calls `life.ready()`, returns when it has drained.

    """
    parser = argparse.ArgumentParser(
        prog=f"kitemesh-{service}",
        description=f"The kitemesh {service}. Settings come from KITEMESH_* variables; docs/settings.md lists them.",
    )
    parser.add_argument("--check", action="store_true", help="print the effective settings, secrets masked, and exit")
    parser.add_argument("--version", action="version", version=version(f"kitemesh-{service}"))
    arguments = parser.parse_args()
    try:
        settings = load(model, os.environ)
    except SettingsError as exc:
        for problem in exc.problems:
            sys.stderr.write(f"kitemesh-{service}: {problem}\n")
        sys.exit(EX_CONFIG)
    if arguments.check:
        sys.stdout.write(render(settings) + "\n")
        sys.exit(0)
    replica = settings.replica or f"{service}-{os.urandom(4).hex()}"
    logs.configure(level=settings.log_level, log_format=settings.log_format, service=service, replica=replica)
    try:
        uvloop.run(live(settings, replica, serve))
    except BaseException as exc:
        log.critical("service.died", exc_info=exc)
        sys.exit(1)
    log.info("service.stopped")
    sys.exit(0)
