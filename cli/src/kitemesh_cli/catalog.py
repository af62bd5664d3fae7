"""`kitemesh catalog check`: say whether a catalog can be used, with every mistake at once."""

import argparse
from pathlib import Path

from kitemesh_cli.failures import EX_FAILED, Failed
from kitemesh_runtime.catalog import CatalogError
from kitemesh_runtime.catalog_file import read


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
    check.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Be the verb."""
    if not arguments.file.exists():
        raise Failed(f"{arguments.file} does not exist")
    try:
        catalog = read(arguments.file)
    except CatalogError as exc:
        for problem in exc.problems:
            print(problem)
        return EX_FAILED
    counts = {
        "providers": len(catalog.providers),
        "models": len(catalog.models),
        "agents": len(catalog.agents),
        "groups": len(catalog.groups),
    }
    print(f"{arguments.file} is valid; " + ", ".join(f"{name}: {count}" for name, count in counts.items()))
    return 0
