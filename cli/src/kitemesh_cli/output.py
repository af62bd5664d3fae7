"""What a verb prints for programs: one JSON document on standard output, and nothing else there."""

import argparse
import json
import re
from typing import Any, Final

_UNSEEN: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What encoders leave as it is inside strings: the ones below the space are never there."""


def add_json(parser: "argparse.ArgumentParser | argparse._MutuallyExclusiveGroup") -> None:
    """Take the wish for JSON."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def print_json(value: Any) -> None:
    """Print the document."""
    print(tame(json.dumps(value, indent=2)))


def tame(document: str) -> str:
    """Return JSON text in which nothing moves a terminal's cursor or turns the order; it means the same."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", document)
