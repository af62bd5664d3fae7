"""The `kitemesh` command: finds the verb and turns what went wrong into sentences and an exit code."""

import argparse
import os
import sys
from importlib.metadata import version

import structlog

from kitemesh_cli import (
    approvals,
    bootstrap,
    catalog,
    completion,
    conversation,
    dead,
    demo,
    dev,
    doctor,
    down,
    keys,
    knowledge,
    status,
    tenants,
    tools,
    usage,
)
from kitemesh_cli.failures import EX_CONFIG, EX_FAILED, Failed
from kitemesh_contracts.errors import KitemeshError
from kitemesh_runtime.catalog import CatalogError
from kitemesh_runtime.one_line import one_line
from kitemesh_runtime.settings import SettingsError

VERBS = (
    dev,
    demo,
    down,
    bootstrap,
    status,
    doctor,
    keys,
    tenants,
    catalog,
    conversation,
    approvals,
    dead,
    tools,
    knowledge,
    usage,
    completion,
)

DESCRIPTION = "Run and look after a kitemesh cluster."
EPILOG = """\
Settings come from KITEMESH_* variables; docs/settings.md lists them. While `kitemesh dev` runs from a data folder, the
other verbs use its servers unless the variables name others.

exit codes: 0 done, 1 failed or refused, 2 wrong usage, 78 wrong settings, 130 interrupted
"""


def main() -> int:
    """Be the command; returns the exit code."""
    # Only what the operator must know, and never between the lines that a program may read.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(40),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    parser = build()
    if not sys.argv[1:]:
        parser.exit(2, parser.format_help())
    arguments = parser.parse_args()
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read it has read enough. Nothing more is said, when Python writes what is left, either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EX_FAILED
    except SettingsError as exc:
        return _complain(exc.problems, EX_CONFIG)
    except CatalogError as exc:
        return _complain(exc.sentences(), EX_FAILED)
    except KitemeshError as exc:
        return _complain([exc.message], EX_FAILED)
    except Failed as exc:
        return _complain([str(exc)], EX_FAILED)
    except Exception as exc:
        if arguments.traceback:
            raise
        problem = " ".join(str(exc).split()) or "no further word"
        return _complain([f"{type(exc).__name__}: {problem} (`kitemesh --traceback …` shows where)"], EX_FAILED)


def build() -> argparse.ArgumentParser:
    """Describe every verb."""
    parser = argparse.ArgumentParser(
        prog="kitemesh",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"kitemesh {version('kitemesh-cli')}")
    parser.add_argument("--traceback", action="store_true", help="show where an unexpected problem came from")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in VERBS:
        verb.add(verbs)
    parser.set_defaults(command=parser)
    return parser


def _complain(problems: list[str], code: int) -> int:
    for problem in problems:
        # Names in it may come from others.
        sys.stderr.write("kitemesh: " + "\n".join(map(one_line, problem.split("\n"))) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
