"""One written form for JSON, so that the same arguments have the same bytes and the same hash everywhere.

Keys sorted, no blanks, the shortest number that reads back the same. What two parsers might read differently is
refused and never mended: a name given twice, half a surrogate pair, a number that 64 bits do not hold exactly. Pure.
"""

import hashlib
import json
import math
from decimal import Decimal, InvalidOperation
from typing import Final, NoReturn

import msgspec

from kitemesh_contracts.errors import BadRequest, ErrorCode

MAX_DEPTH: Final = 32
"""Objects and lists within one another, the outermost included."""

_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**64 - 1
_INT_CHARACTERS: Final = 20


class _Refused(ValueError):
    """The text is JSON, but has no one written form."""


def canonical(text: str) -> str:
    """Return an object's canonical text.

    Raises:
        BadRequest: It is not a JSON object, nests too deep, or holds what has no exact form (`tool.arguments`). The
            message quotes nothing.

    """
    try:
        value = _decode(text)
        _check(value)
        return msgspec.json.encode(value, order="sorted").decode()
    except _Refused as exc:
        raise _error(str(exc)) from exc
    except UnicodeError as exc:
        raise _error("hold half of a surrogate pair") from exc
    except RecursionError as exc:
        raise _error("nest too deep") from exc
    except ValueError as exc:
        raise _error("are not JSON") from exc


def sha256(text: str) -> str:
    """Return the SHA-256 of a text, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def _constant(_: str) -> NoReturn:
    raise _Refused("hold a number that is not finite")


def _integer(digits: str) -> int:
    # The length first: Python takes its time over millions of digits. A zero with a sign is an integer to some parsers
    # and a negative float to others.
    if len(digits) <= _INT_CHARACTERS and digits != "-0":
        value = int(digits)
        if _INT_MIN <= value <= _INT_MAX:
            return value
    raise _Refused("hold a number that 64 bits do not hold exactly")


def _real(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _Refused("hold a number that is not finite")
    try:
        same = Decimal(digits) == Decimal(repr(value))
    except InvalidOperation:
        same = False
    if not same:
        raise _Refused("hold a number that 64 bits do not hold exactly")
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Refused("hold an object that has the same name twice")
    return members


_decode: Final = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_constant=_constant,
    parse_int=_integer,
    parse_float=_real,
).decode


def _check(value: object) -> None:
    if not isinstance(value, dict):
        raise _Refused("are not a JSON object")
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        inner: list[object] = []
        for each in level:
            if isinstance(each, dict):
                inner.extend(each.values())
            elif isinstance(each, list):
                inner.extend(each)
        level = [each for each in inner if isinstance(each, dict | list)]
        if not level:
            return
    raise _Refused("nest too deep")


def _error(why: str) -> BadRequest:
    return BadRequest(ErrorCode.TOOL_ARGUMENTS, f"The arguments {why}")
