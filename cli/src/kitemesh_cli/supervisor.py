"""The life of a one-machine cluster: start, wait, stop in the reverse order.

A signal at any moment begins the stop, a second one ends everything at once; nothing is left running either way.
"""

import asyncio
import signal
from typing import Final

import aiohttp

from kitemesh_cli import cluster
from kitemesh_cli.banner import render
from kitemesh_cli.catalog_watch import objection_of, tell_changes
from kitemesh_cli.children import Children
from kitemesh_cli.console import say
from kitemesh_cli.start_up import Plan, start_up
from kitemesh_cli.terminal import watch_terminal
from kitemesh_runtime.catalog_file import WatchedFile

SERVER_STOP_S: Final = 15.0
STOP_MARGIN_S: Final = 5.0
"""Beyond its drain a service gets this much to close what it opened."""


async def supervise(plan: Plan) -> None:
    """Run the cluster until a signal asks for its end.

    Raises:
        Failed: Something did not start; what had started is stopped again.

    """
    async with aiohttp.ClientSession() as session, Children(say) as children:
        stopping = _heed_signals(children)
        starting = asyncio.create_task(start_up(plan, children, session), name="start-up")
        asked = asyncio.create_task(stopping.wait(), name="wait-for-stop")
        watching = [asyncio.create_task(watch_terminal(stopping.set), name="terminal-watch")]
        try:
            await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                ready = starting.result()
                # From before anybody knows that it is ready, so that no edit falls in between.
                catalog = WatchedFile(ready.catalog)
                say(render(ready))
                objection = objection_of(plan.folder.environment)
                watching.append(asyncio.create_task(tell_changes(catalog, say, objection), name="catalog-watch"))
                await asked
        finally:
            children.settle()
            tasks = [starting, asked, *watching]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await _stop(children, plan.settings.drain_s + STOP_MARGIN_S)


def _heed_signals(children: Children) -> asyncio.Event:
    stopping = asyncio.Event()

    def heed(number: int) -> None:
        # A terminal that closes may say so twice, and means no haste.
        if stopping.is_set() and number != signal.SIGHUP:
            say("stopping at once")
            children.kill()
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Under nohup SIGHUP is ignored, and shall be.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, heed, number)
    return stopping


async def _stop(children: Children, grace_s: float) -> None:
    say("stopping")
    servers = {cluster.MONGOD, cluster.NATS}
    # Clients first, while everything that can finish their turns still runs.
    await children.stop({cluster.GATEWAY}, grace_s=grace_s)
    await children.stop(children.names - servers, grace_s=grace_s)
    await children.stop(servers, grace_s=SERVER_STOP_S)
    say("stopped")
