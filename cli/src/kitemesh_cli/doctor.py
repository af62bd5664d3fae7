"""`kitemesh doctor`: look at everything that a cluster stands on, and say what is wrong and what to do about it."""

import argparse
import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import structlog

from kitemesh_cli.arguments import add_data, folder_of
from kitemesh_cli.doctor_findings import Level, Verdict, is_well, judge
from kitemesh_cli.doctor_probe import gather_facts
from kitemesh_cli.failures import EX_FAILED
from kitemesh_cli.output import add_json, print_json
from kitemesh_runtime.one_line import one_line

DESCRIPTION = """\
Look at NATS, MongoDB, the catalog, the services and the gateway, and say what is wrong and what to do. Nothing is
changed. It takes about five seconds: for that long it listens for the services' signs of life.

With --access DIR it also signs in as each service, with the variables that `kitemesh bootstrap --access DIR` wrote, and
looks whether each may do what it needs; for a cluster that runs from the data folder it always does.
"""
EPILOG = """\
exit codes: 0 nothing failed (there may be warnings), 1 something did, 78 wrong settings
"""
_MARKS: Final[dict[Level, str]] = {"ok": "ok  ", "warn": "warn", "fail": "FAIL", "untold": "?   "}
_CRITICAL: Final = 50
"""What a probe meets is told as a finding; nothing logs at this level."""


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = verbs.add_parser(
        "doctor",
        help="say what is wrong with a cluster, and what to do",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--access", type=Path, metavar="DIR", help="where `kitemesh bootstrap --access` wrote the services' variables"
    )
    add_json(parser)
    add_data(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Be the verb."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(_CRITICAL))
    verdicts = judge(asyncio.run(gather_facts(folder_of(arguments), arguments.access, os.environ)))
    if arguments.json:
        print_json(public(verdicts))
    else:
        print(told(verdicts))
    return 0 if is_well(verdicts) else EX_FAILED


def public(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return the verdicts for programs."""
    return {
        "healthy": is_well(verdicts),
        "checks": [
            {
                "id": each.check,
                "level": each.level,
                "note": each.note,
                "findings": [finding._asdict() for finding in each.findings],
            }
            for each in verdicts
        ],
    }


def told(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts for people: a line for each check, and under it what is wrong with what, and what to do."""
    lines: list[str] = []
    width = max(len(each.check) for each in verdicts)
    for verdict in verdicts:
        note = verdict.note or f"{len(verdict.findings)} found"
        lines.append(f"{_MARKS[verdict.level]}  {verdict.check:<{width}}  {one_line(note)}")
        for finding in verdict.findings:
            lines.append(f"        {one_line(finding.about)}: {one_line(finding.problem)}")
            lines.append(f"          -> {one_line(finding.advice)}")
    counts = {level: sum(each.level == level for each in verdicts) for level in _MARKS}
    summary = f"{counts['ok']} well, {counts['warn']} doubtful, {counts['fail']} failed, {counts['untold']} not told"
    return "\n".join([*lines, "", summary])
