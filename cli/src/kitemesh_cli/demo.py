"""`kitemesh demo`: a durable stream that outlives `kill -9` of its runner and of its gateway.

What is killed when, and the judgement at the end; cluster, client and screen are modules of their own.
"""

import argparse
import asyncio
import shutil
import signal
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple

import aiohttp

from kitemesh_cli.banner import GROUP
from kitemesh_cli.demo_cluster import DemoCluster, Killed
from kitemesh_cli.demo_screen import Screen
from kitemesh_cli.demo_story import SCRIPT, Story
from kitemesh_cli.demo_stream import Stream
from kitemesh_cli.failures import EX_FAILED, Failed

DESCRIPTION = """\
Watch an answer arrive while processes under it are killed: first the model-runner that generates it, then the gateway
that streams it, both with `kill -9` and for good.

It starts a cluster of its own, two gateways and two model-runners, on free ports and in a temporary folder, asks the
scripted model for a long durable answer, and goes on at the other gateway with Last-Event-ID. The exit code is 0 only
if the text is the script's to the letter. A cluster that runs here is not touched.
"""

PACE_MS: Final = 90
LONGEST_S: Final = 120.0
EX_INTERRUPTED: Final = 130

_RUNNER_AT: Final = 0.2
_GATEWAY_AT: Final = 0.6


class Strike(NamedTuple):
    """Something to kill.

    Attributes:
        at: The share of the text after which it is time.
        what: What the victim does.
        kill: Does it.

    """

    at: float
    what: str
    kill: Callable[[], Awaitable[Killed]]


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = verbs.add_parser(
        "demo",
        help="kill processes under a stream and watch it go on",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--plain", action="store_true", help="no colour and no status line, for logs")
    parser.add_argument(
        "--pace-ms", type=int, default=PACE_MS, metavar="N", help="milliseconds before each word (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Be the verb."""
    screen = Screen(plain=arguments.plain)
    root = Path(tempfile.mkdtemp(prefix="kitemesh-demo-"))
    keep_logs = True
    try:
        keep_logs = bool(problems := asyncio.run(_perform(root, screen, max(0, arguments.pace_ms))))
    except (KeyboardInterrupt, asyncio.CancelledError):
        keep_logs = False
        return EX_INTERRUPTED
    finally:
        if keep_logs:
            screen.line(f"logs are kept in {root / 'logs'}")
        else:
            shutil.rmtree(root, ignore_errors=True)
    return EX_FAILED if problems else 0


async def _perform(root: Path, screen: Screen, pace_ms: int) -> list[str]:
    _heed_signals()
    screen.line("starting a cluster of its own: two gateways, two model-runners")
    async with (
        aiohttp.ClientSession() as session,
        DemoCluster.running(root, session, screen.line) as demo,
    ):
        try:
            async with asyncio.timeout(LONGEST_S):
                return await _watch(demo, session, screen, pace_ms)
        except TimeoutError as exc:
            raise Failed(f"the answer did not end within {LONGEST_S:.0f} s") from exc


def _heed_signals() -> None:
    """Let a SIGTERM clean up as Ctrl-C does."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


async def _watch(demo: DemoCluster, session: aiohttp.ClientSession, screen: Screen, pace_ms: int) -> list[str]:
    """Follow the stream, kill what is to be killed, and return what is wrong in the end."""
    body = {
        "model": GROUP,
        "stream": True,
        "messages": [{"role": "user", "content": f"@echo {SCRIPT}\n@delay_ms {pace_ms}"}],
        "metadata": {"mode": "durable"},
    }
    story = Story()
    stream = Stream(session, list(demo.gateways.values()), body, lambda reason, to: _tell_break(screen, reason, to))
    strikes = deque(
        [
            Strike(_RUNNER_AT, "generates this answer", demo.kill_busy_runner),
            Strike(_GATEWAY_AT, "streams it", lambda: demo.kill_gateway(stream.gateway)),
        ]
    )
    screen.note(f"asking {stream.gateway} for a durable answer")
    async with screen.watched():
        async for piece in stream.pieces():
            story.add(piece.id, piece.text, piece.finish)
            screen.write(piece.text)
            if strikes and story.share >= strikes[0].at:
                strike = strikes.popleft()
                killed = await strike.kill()
                story.struck(killed.name)
                screen.note(f"kill -9 {killed.pid}: {killed.name}, which {strike.what}")
    problems = story.problems()
    if not stream.breaks:
        problems.append("the answer was over before the gateway died")
    elif (stored := await demo.status_of(stream.execution, stream.gateway)) != "completed":
        problems.append(f"the turn is stored as {stored}")
    _sum_up(screen, story, stream.execution, problems)
    return problems


def _tell_break(screen: Screen, reason: str, gateway: str) -> None:
    screen.note(f"{reason}; going on at {gateway} with Last-Event-ID")


def _sum_up(screen: Screen, story: Story, execution: str, problems: list[str]) -> None:
    screen.line("")
    if problems:
        for problem in problems:
            screen.line(f"WRONG: {problem}")
    else:
        screen.line(f"exact         all {len(SCRIPT)} characters of the script, none missing, none twice")
    for name, silent_ms in story.silences_ms.items():
        screen.line(f"longest wait  {silent_ms:,.0f} ms after {name} was killed")
    screen.line(f"execution     {execution}, stored as completed" if not problems else f"execution     {execution}")
