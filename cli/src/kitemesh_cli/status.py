"""`kitemesh status`: services, queues, approvals, dead letters and upstreams of a cluster, once or again and again."""

import argparse
import os
import time
from typing import Any, Final, NoReturn

from kitemesh_cli.arguments import add_data, folder_of
from kitemesh_cli.failures import EX_FAILED, Failed
from kitemesh_cli.output import add_json, print_json
from kitemesh_cli.status_source import read_cluster
from kitemesh_cli.status_view import View, Word, view_of

EVERY_S: Final = 2.0

DESCRIPTION = """\
Show a cluster: who runs, what waits and for how long, approvals, dead letters, upstreams. The gateway is KITEMESH_URL,
the key, which needs the scope admin or operator, KITEMESH_KEY; without them they are those of the cluster that runs
from the data folder. Where no gateway tells, the replicas are listened to on NATS, which is less, and said so.
"""
EPILOG = """\
exit codes: 0 everything works (there may be doubts), 1 something does not, or no gateway tells whether it does
"""


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = verbs.add_parser(
        "status",
        help="show services, queues, approvals and upstreams",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help="show it again and again until Ctrl-C")
    add_json(how)
    parser.add_argument(
        "--every", type=_pause_s, default=EVERY_S, metavar="S", help="seconds between two looks (default: %(default)g)"
    )
    add_data(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Be the verb."""
    if arguments.watch:
        _watch(arguments)
    cluster = read_cluster(folder_of(arguments), os.environ)
    view = view_of(cluster)
    if arguments.json:
        words = [each._asdict() for each in view.words]
        print_json({**cluster, "well": view.is_well, "words": words})
    else:
        _show(view, _notes(cluster))
    return 0 if view.is_well else EX_FAILED


def _show(view: View, notes: list[str]) -> None:
    # The library takes a quarter of a second to load, which no other verb should.
    from kitemesh_cli import status_screen  # noqa: PLC0415  see above

    console = status_screen.terminal()
    if console.is_terminal:
        console.print(status_screen.coloured(view, notes))
    else:
        print(status_screen.plain(view, notes))


def _watch(arguments: argparse.Namespace) -> NoReturn:
    """Show it for ever; that nobody answers is shown, too, and looked at again."""
    from rich.live import Live  # noqa: PLC0415  see `_show`

    from kitemesh_cli import status_screen  # noqa: PLC0415  as above

    console = status_screen.terminal()
    if not console.is_terminal:
        while True:
            print(status_screen.plain(*_look(arguments)) + "\n", flush=True)
            time.sleep(arguments.every)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(status_screen.coloured(*_look(arguments)), refresh=True)
            time.sleep(arguments.every)


def _look(arguments: argparse.Namespace) -> tuple[View, list[str]]:
    about = f"{time.strftime('%H:%M:%S')}, every {arguments.every:g} s until Ctrl-C"
    try:
        cluster = read_cluster(folder_of(arguments), os.environ)
    except Failed as exc:
        return View((), (Word("wrong", str(exc)),)), [about]
    return view_of(cluster), [about, *_notes(cluster)]


def _notes(cluster: dict[str, Any]) -> list[str]:
    if cluster["source"] == "gateway":
        return []
    return ["this is what replicas say on NATS; what only a gateway knows is not told"]


def _pause_s(text: str) -> float:
    try:
        pause_s = float(text)
    except ValueError:
        pause_s = 0.0
    if not 0.1 <= pause_s <= 3600:  # noqa: PLR2004  said in the message
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.1 to 3600")
    return pause_s
