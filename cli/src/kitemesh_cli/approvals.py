"""`kitemesh approvals list | show | approve | deny`: tool calls that wait for a person, asked of a gateway."""

import argparse
import json
import os
import time
from typing import Any, Final

from kitemesh_cli import approvals_shown
from kitemesh_cli.arguments import add_data, folder_of, identifier
from kitemesh_cli.failures import Failed
from kitemesh_cli.gateway_client import Place, ask, find_gateway
from kitemesh_cli.output import add_json, print_json

STATUSES: Final = ("open", "decided", "expired", "cancelled", "all")

DESCRIPTION = """\
See and decide tool calls that wait for a person. The gateway is KITEMESH_URL, the key KITEMESH_KEY; without them they
are those of the cluster that runs from the data folder. The key needs the scope that the approval names.
"""
EXAMPLES = """\
examples:
  kitemesh approvals list
  kitemesh approvals show 86dd028d-6f5c-4f13-83db-d4fe9bc5b865
  kitemesh approvals approve 86dd028d-6f5c-4f13-83db-d4fe9bc5b865
  kitemesh approvals deny 86dd028d-6f5c-4f13-83db-d4fe9bc5b865 --reason "not this one"
"""
EDITING = """\
examples:
  kitemesh approvals approve ID                                  every call that nobody decided
  kitemesh approvals approve ID CALL                             one call; the others stay as they are
  kitemesh approvals approve ID CALL --arguments 'CALL={"id": "43"}'

Where `show` prints "***" a secret is masked; left as it is in edited arguments it stays what it was.
"""


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verbs."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = verbs.add_parser(
        "approvals",
        help="see and decide tool calls that wait for a person",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=raw,
    )
    what = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    listing = what.add_parser("list", help="list approvals", description="List approvals, newest first.")
    listing.add_argument("--status", choices=STATUSES, default="open", help="which ones (default: %(default)s)")
    listing.add_argument("--limit", type=int, default=100, metavar="N", help="at most so many (default: %(default)s)")
    listing.set_defaults(run=list_approvals)
    show = what.add_parser(
        "show", help="show one with its calls", description="Show an approval: its calls, decisions and audit."
    )
    show.set_defaults(run=show_approval)
    approve = what.add_parser(
        "approve", help="let calls run", description="Let calls run.", epilog=EDITING, formatter_class=raw
    )
    approve.add_argument(
        "--arguments",
        action="append",
        default=[],
        type=edited,
        metavar="CALL=JSON",
        help="run the call with these arguments instead; repeatable",
    )
    approve.set_defaults(run=approve_calls)
    deny = what.add_parser("deny", help="refuse calls", description="Refuse calls; the turn goes on without them.")
    deny.set_defaults(run=deny_calls, arguments=[])
    for each in (show, approve, deny):
        each.add_argument("id", type=identifier, metavar="ID", help="the approval's id")
    for each in (approve, deny):
        each.add_argument(
            "calls",
            type=identifier,
            nargs="*",
            metavar="CALL",
            help="tool execution ids (default: every undecided one)",
        )
        each.add_argument("--reason", default="", help="kept with the decision; told to the model when denied")
    for each in (listing, show, approve, deny):
        add_json(each)
        add_data(each, "data folder of `kitemesh dev`; while one runs there, its gateway and key are used")


def edited(text: str) -> tuple[str, dict[str, Any]]:
    """Read a call's edited arguments."""
    call, mark, value = text.partition("=")
    try:
        arguments = json.loads(value)
    except (ValueError, RecursionError):
        arguments = None
    if not mark or not isinstance(arguments, dict):
        raise argparse.ArgumentTypeError(
            f'{text!r} is not CALL=JSON with a JSON object, such as CALL=\'{{"id": "43"}}\''
        )
    return identifier(call), arguments


def list_approvals(arguments: argparse.Namespace) -> int:
    """Be `approvals list`."""
    place = _place(arguments)
    found: list[dict[str, Any]] = []
    query = {} if arguments.status == "all" else {"status": arguments.status}
    more = True
    while more and len(found) < arguments.limit:
        page = ask(place, "GET", "/v1/approvals", query=query)
        data, cursor = page.get("data"), page.get("next_cursor")
        found += data if isinstance(data, list) else []
        more = bool(data) and isinstance(cursor, str)
        query = {**query, "cursor": str(cursor)}
    shown = found[: max(0, arguments.limit)]
    if arguments.json:
        print_json(shown)
    elif not shown:
        print("there are no approvals" if arguments.status == "all" else f"no approval is {arguments.status}")
    else:
        print(approvals_shown.table(shown, time.time()))
        if more or len(found) > len(shown):
            print(f"and more; --limit takes another number than {arguments.limit}")
    return 0


def show_approval(arguments: argparse.Namespace) -> int:
    """Be `approvals show`."""
    approval = ask(_place(arguments), "GET", f"/v1/approvals/{arguments.id}")
    if arguments.json:
        print_json(approval)
    else:
        print(approvals_shown.whole(approval, time.time()))
    return 0


def approve_calls(arguments: argparse.Namespace) -> int:
    """Be `approvals approve`."""
    return _decide(arguments, approved=True)


def deny_calls(arguments: argparse.Namespace) -> int:
    """Be `approvals deny`."""
    return _decide(arguments, approved=False)


def _decide(arguments: argparse.Namespace, *, approved: bool) -> int:
    place, path = _place(arguments), f"/v1/approvals/{arguments.id}"
    chosen = list(dict.fromkeys(arguments.calls))
    if not chosen:
        approval = ask(place, "GET", path)
        chosen = approvals_shown.undecided(approval)
        if not chosen:
            raise Failed(
                f"every call of approval {arguments.id} is decided already; `kitemesh approvals show` says how"
            )
    edits = dict(arguments.arguments)
    for call in edits.keys() - chosen:
        raise Failed(f"--arguments names {call}, which is not among the calls to approve")
    decisions = [_decision(call, edits, approved=approved, reason=arguments.reason) for call in chosen]
    decided = ask(place, "POST", f"{path}/decide", body={"decisions": decisions})
    if arguments.json:
        print_json(decided)
    else:
        print(approvals_shown.outcome(decided, chosen))
    return 0


def _decision(call: str, edits: dict[str, Any], *, approved: bool, reason: str) -> dict[str, Any]:
    decision: dict[str, Any] = {"tool_execution_id": call, "approved": approved}
    if reason:
        decision["reason"] = reason
    if call in edits:
        decision["arguments"] = edits[call]
    return decision


def _place(arguments: argparse.Namespace) -> Place:
    return find_gateway(folder_of(arguments), os.environ)
