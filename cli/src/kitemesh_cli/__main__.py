"""The `kitemesh` command: finds the verb and turns what went wrong into sentences and an exit code."""

import argparse
import sys
from importlib.metadata import version

import structlog

from kitemesh_cli import (
    approvals,
    bootstrap,
    catalog,
    conversation,
    demo,
    dev,
    down,
    keys,
    knowledge,
    tenants,
    tools,
    usage,
)
from kitemesh_cli.failures import EX_CONFIG, EX_FAILED, Failed
from kitemesh_contracts.errors import KitemeshError
from kitemesh_runtime.catalog import CatalogError
from kitemesh_runtime.settings import SettingsError

VERBS = (dev, demo, down, bootstrap, keys, tenants, catalog, conversation, approvals, tools, knowledge, usage)

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
    if not sys.argv[1:]:
        parser.exit(2, parser.format_help())
    arguments = parser.parse_args()
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        return 130
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


def _complain(problems: list[str], code: int) -> int:
    for problem in problems:
        sys.stderr.write(f"kitemesh: {problem}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
