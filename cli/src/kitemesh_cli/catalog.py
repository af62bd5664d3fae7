"""`kitemesh catalog check`: say whether a catalog can be used, with every mistake at once."""

import argparse
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

from kitemesh_cli.failures import EX_FAILED, Failed
from kitemesh_cli.output import add_json, print_json
from kitemesh_runtime.catalog import Catalog, CatalogError
from kitemesh_runtime.catalog_file import read
from kitemesh_runtime.catalog_text import Lines
from kitemesh_runtime.catalog_tools import PythonTool
from kitemesh_runtime.one_line import one_line

_GROUP: Final = "kitemesh.tools"


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = verbs.add_parser("catalog", help="check a catalog file", description="Work with catalog files.")
    what = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    check = what.add_parser(
        "check",
        help="report every mistake in a file",
        description="Read a catalog as the services do and print every mistake, one a line; exit 1 if there is any.",
    )
    check.add_argument("file", type=Path, metavar="FILE", help="the YAML file")
    add_json(check)
    check.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Be the verb."""
    if not arguments.file.exists():
        raise Failed(f"{arguments.file} does not exist")
    try:
        catalog = read(arguments.file)
    except CatalogError as exc:
        problems = list(place(arguments.file, exc))
        if arguments.json:
            print_json({"valid": False, "problems": problems, "warnings": [], "counts": {}})
        for line in () if arguments.json else problems:
            print(one_line(line))
        return EX_FAILED
    counts = {
        "providers": len(catalog.providers),
        "models": len(catalog.models),
        "agents": len(catalog.agents),
        "groups": len(catalog.groups),
        "tools": len(catalog.tools),
        "policies": len(catalog.policies),
        "webhooks": len(catalog.webhooks),
    }
    warnings = list(find_doubtful(catalog))
    if arguments.json:
        print_json({"valid": True, "problems": [], "warnings": warnings, "counts": counts})
        return 0
    for warning in warnings:
        sys.stderr.write(f"kitemesh: warning: {one_line(warning)}\n")
    print(f"{arguments.file} is valid; " + ", ".join(f"{name}: {count}" for name, count in counts.items()))
    return 0


def place(path: Path, error: CatalogError) -> Iterator[str]:
    """Return each mistake behind the file and the line that it is in, as far as it has one, in the file's order."""
    try:
        lines = Lines(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        lines = Lines("")
    found = [(lines.find(problem), problem) for problem in error.problems]
    for line, problem in sorted(found, key=lambda each: each[0] or 0):
        if line is not None:
            yield f"{path}:{line}: {problem}"
        else:
            yield problem if problem.startswith(str(path)) else f"{path}: {problem}"


def find_doubtful(catalog: Catalog) -> Iterator[str]:
    """Say what may be right elsewhere and is not here, or is allowed and seldom meant."""
    installed = {each.name for each in entry_points(group=_GROUP)}
    used = {name for agent in catalog.agents.values() for name in agent.tools}
    for name, tool in catalog.tools.items():
        if isinstance(tool, PythonTool) and tool.entry_point not in installed:
            yield f"tools.{name}: nothing that is installed here has the entry point {_GROUP}: {tool.entry_point}"
        if name not in used:
            yield f"tools.{name}: no agent has it"
