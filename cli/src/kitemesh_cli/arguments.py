"""Arguments that several verbs take, and how their texts are read."""

import argparse
import re
from pathlib import Path
from typing import Final

from kitemesh_cli.data_folder import DEFAULT, DataFolder
from kitemesh_contracts.ids import is_id

_LIFETIME: Final = re.compile(r"\A([1-9][0-9]{0,8})([smhdw])\Z")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


_USES: Final = "data folder of `kitemesh dev`; while one runs there, the verb uses its servers"


def add_data(parser: argparse.ArgumentParser, meaning: str = _USES) -> None:
    """Take the data folder of a one-machine cluster."""
    parser.add_argument("--data", type=Path, default=DEFAULT, metavar="DIR", help=f"{meaning} (default: %(default)s)")


def folder_of(arguments: argparse.Namespace) -> DataFolder:
    """Return the data folder that was named."""
    return DataFolder(arguments.data)


def identifier(text: str) -> str:
    """Read an id."""
    if not is_id(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 to 64 of A-Z a-z 0-9 _ -")
    return text


def lifetime_s(text: str) -> float:
    """Read a length of time such as `30d`, in seconds."""
    match = _LIFETIME.match(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number with s, m, h, d or w, such as 30d")
    return float(int(match.group(1)) * _UNIT_S[match.group(2)])


def grace_s(text: str) -> float:
    """Read a length of time such as `24h`, or `0`, in seconds."""
    return 0.0 if text == "0" else lifetime_s(text)
