"""`kitemesh down`: stop what `kitemesh dev` runs from a data folder, and wait until it is gone."""

import argparse
import contextlib
import os
import signal
import time
from typing import Final

from kitemesh_cli.arguments import add_data, folder_of
from kitemesh_cli.data_folder import shown
from kitemesh_cli.dev_lock import holder
from kitemesh_cli.failures import Failed
from kitemesh_cli.output import add_json, print_json

DESCRIPTION = """\
Stop the cluster that `kitemesh dev` (or `make up`) runs from a data folder, as Ctrl-C would, and wait until every
process is gone. When nothing runs it says so and succeeds.
"""

PATIENCE_S: Final = 60.0
"""Longer than a drain and the stop of both servers; after that everything is ended at once."""

LAST_S: Final = 10.0
_LOOK_EVERY_S: Final = 0.05


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = verbs.add_parser(
        "down",
        help="stop the cluster that `kitemesh dev` runs here",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_json(parser)
    add_data(parser, "the folder that it runs from")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Be the verb."""
    folder = folder_of(arguments)
    held = holder(folder.lock)
    if held is None:
        if arguments.json:
            print_json({"stopped": None})
        else:
            print(f"nothing runs from {shown(folder.root)}")
        return 0
    if not arguments.json:
        print(f"stopping process {held.pid} at {held.url}", flush=True)
    started = time.monotonic()
    for patience_s in (PATIENCE_S, LAST_S):
        # The second signal ends everything at once; between two looks it may have gone by itself.
        with contextlib.suppress(ProcessLookupError):
            os.kill(held.pid, signal.SIGTERM)
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            # The kernel lets go of the lock when the process is gone, and it goes last.
            if holder(folder.lock) is None:
                took_s = round(time.monotonic() - started, 1)
                if arguments.json:
                    print_json({"stopped": {"pid": held.pid, "url": held.url, "took_s": took_s}})
                else:
                    print(f"stopped after {took_s} s")
                return 0
            time.sleep(_LOOK_EVERY_S)
    raise Failed(f"process {held.pid} does not stop; look at it before you kill it")
