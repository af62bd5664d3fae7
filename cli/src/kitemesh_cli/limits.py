"""Limits on the command line: how they are given, and how they are shown."""

import argparse
from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from kitemesh_runtime.tenancy import Limits

NONE: Final = "none"
MOST: Final = 1_000_000_000

_FIELDS: Final[Mapping[str, tuple[str, str]]] = {
    "requests": ("requests_per_minute", "requests in a minute"),
    "tokens": ("tokens_per_minute", "tokens in a minute, in and out"),
    "turns": ("concurrent_turns", "turns at once"),
}


def add_limits(parser: argparse.ArgumentParser, prefix: str, whose: str) -> None:
    """Take limits, each as an option that begins with `prefix`."""
    for word, (_, meaning) in _FIELDS.items():
        parser.add_argument(
            f"--{prefix}-{word}", type=_bound, metavar="N", help=f"{meaning}, of {whose}; `{NONE}` sets no bound"
        )


def limits_of(arguments: argparse.Namespace, prefix: str, before: Limits) -> Limits:
    """Return limits with those changed that were given; 0 stands for none."""
    given = {field: getattr(arguments, f"{prefix}_{word}".replace("-", "_")) for word, (field, _) in _FIELDS.items()}
    return replace(before, **{field: value or None for field, value in given.items() if value is not None})


def shown(limits: Limits) -> str:
    """Return limits for a cell of a table."""
    told = (
        (limits.requests_per_minute, "requests/min"),
        (limits.tokens_per_minute, "tokens/min"),
        (limits.concurrent_turns, "turns"),
    )
    return ", ".join(f"{value} {unit}" for value, unit in told if value is not None) or "-"


def _bound(text: str) -> int:
    if text == NONE:
        return 0
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number from 1 to {MOST} nor `{NONE}`")
    return int(text)
