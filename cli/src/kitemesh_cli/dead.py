"""`kitemesh dead list | show | requeue | drop`: messages that nobody could handle, asked of a gateway."""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from kitemesh_cli.arguments import add_data, folder_of
from kitemesh_cli.failures import EX_FAILED, Failed
from kitemesh_cli.gateway_client import Place, ask, find_gateway
from kitemesh_cli.output import add_json, print_json
from kitemesh_cli.tables import lay_out
from kitemesh_contracts import topology
from kitemesh_runtime.one_line import one_line

PAGE: Final = 100

DESCRIPTION = """\
See messages that were given up, because whoever took them up died each time or could not read them, and let a stored
turn go on from where it stood: what has finished is not run again. The gateway is KITEMESH_URL, the key, which needs
the scope operator, KITEMESH_KEY; without them they are those of the cluster that runs from the data folder.
"""
EXAMPLES = """\
examples:
  kitemesh dead list
  kitemesh dead show 17
  kitemesh dead requeue 17 18        when what they died of is gone
  kitemesh dead drop --all           forget them; their turns stay failed
"""
_STREAMS: Final = (topology.TURN, topology.CONTROL, topology.EVENT, topology.MODEL, topology.TOOL)


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verbs."""
    parser = verbs.add_parser(
        "dead",
        help="see, requeue and drop messages that were given up",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    listing = what.add_parser("list", help="list dead letters", description="List dead letters, newest first.")
    listing.add_argument("--stream", choices=_STREAMS, help="only those of a stream")
    bound = "at most so many (default: %(default)s)"
    listing.add_argument("--limit", type=_count, default=PAGE, metavar="N", help=bound)
    listing.set_defaults(run=list_letters)
    show = what.add_parser("show", help="show one, and how its turn stands", description="Show a dead letter.")
    show.set_defaults(run=show_letter)
    requeue = what.add_parser(
        "requeue",
        help="let their turns go on",
        description="Let stored turns go on from where they stood. What has finished is not run again.",
    )
    requeue.set_defaults(run=requeue_letters)
    drop = what.add_parser("drop", help="forget them", description="Forget dead letters; their turns stay failed.")
    drop.set_defaults(run=drop_letters)
    show.add_argument("id", type=number, metavar="ID", help="as `dead list` shows it")
    for each in (requeue, drop):
        each.add_argument("ids", type=number, nargs="*", metavar="ID", help="as `dead list` shows them")
        each.add_argument("--all", action="store_true", help="every one that there is")
    for each in (listing, show, requeue, drop):
        add_json(each)
        add_data(each)


def number(text: str) -> str:
    """Read the id of a dead letter."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a dead letter")
    return text


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text)):  # noqa: PLR2004  said below
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 999999999")
    return int(text)


def list_letters(arguments: argparse.Namespace) -> int:
    """Be `dead list`."""
    found: list[Mapping[str, Any]] = []
    more = False
    for each in _letters(_place(arguments), arguments.stream):
        if len(found) >= arguments.limit:
            more = True
            break
        found.append(each)
    if arguments.json:
        print_json(found)
    elif not found:
        print("there are no dead letters" + (f" of {arguments.stream}" if arguments.stream else ""))
    else:
        print(lay_out(("ID", "AT", "STREAM", "KIND", "EXECUTION", "DELIVERIES", "REQUEUE", "REASON"), map(_row, found)))
        if more:
            print(f"and more; --limit takes another number than {arguments.limit}")
    return 0


def show_letter(arguments: argparse.Namespace) -> int:
    """Be `dead show`."""
    letter = ask(_place(arguments), "GET", f"/v1/dead/{arguments.id}")
    if arguments.json:
        print_json(letter)
    else:
        print(_whole(letter))
    return 0


def requeue_letters(arguments: argparse.Namespace) -> int:
    """Be `dead requeue`."""
    return _each(arguments, "POST", "/requeue")


def drop_letters(arguments: argparse.Namespace) -> int:
    """Be `dead drop`."""
    return _each(arguments, "DELETE", "")


def _each(arguments: argparse.Namespace, method: str, after: str) -> int:
    """Do it to each letter; one that is refused does not keep the others back."""
    place = _place(arguments)
    if bool(arguments.ids) == arguments.all:
        raise Failed("name dead letters by their ids, or all of them with --all")
    ids = list(dict.fromkeys(arguments.ids)) or [str(each["id"]) for each in list(_letters(place, None))]
    done: list[Mapping[str, Any]] = []
    refused = False
    for each in ids:
        try:
            answer = ask(place, method, f"/v1/dead/{each}{after}")
        except Failed as exc:
            refused = True
            sys.stderr.write(f"kitemesh: dead letter {each}: {exc}\n")
            continue
        done.append(answer)
        if not arguments.json:
            print(_done(answer))
    if arguments.json:
        print_json(done)
    elif not ids:
        print("there are no dead letters")
    return EX_FAILED if refused else 0


def _letters(place: Place, stream: str | None) -> Iterator[Mapping[str, Any]]:
    query = {"limit": str(PAGE)} | ({"stream": stream} if stream else {})
    while True:
        page = ask(place, "GET", "/v1/dead", query=query)
        yield from page.get("data") or ()
        cursor = page.get("next_cursor")
        if not isinstance(cursor, str):
            return
        query = {**query, "cursor": cursor}


def _row(letter: Mapping[str, Any]) -> tuple[str, ...]:
    names = ("id", "at", "stream", "kind", "turn", "deliveries")
    can = "yes" if letter.get("requeueable") else "no"
    return (*(_text(letter.get(name)) for name in names), can, _text(letter.get("reason")))


def _whole(letter: Mapping[str, Any]) -> str:
    lines = [
        f"{name.replace('_', ' ')}: {one_line(_text(value))}"
        for name, value in letter.items()
        if name not in {"effects", "requeueable", "why"}
    ]
    why = one_line(_text(letter.get("why")))
    lines.append("requeue: it can go on from where it stood" if letter.get("requeueable") else f"requeue: no: {why}")
    if effects := letter.get("effects"):
        names = ("id", "name", "step", "state")
        rows = [tuple(_text(effect.get(name)) for name in names) for effect in effects]
        lines += ["", lay_out(("CALL", "TOOL", "STEP", "STATE"), rows)]
    return "\n".join(lines)


def _done(answer: Mapping[str, Any]) -> str:
    letter = f"dead letter {answer.get('id')}"
    if answer.get("deleted"):
        return f"{letter} is dropped"
    return one_line(f"{letter}: execution {answer.get('turn')} of tenant {answer.get('tenant')} goes on")


def _text(value: object) -> str:
    return "-" if value in (None, "") else str(value)


def _place(arguments: argparse.Namespace) -> Place:
    return find_gateway(folder_of(arguments), os.environ)
