"""JSON as this API accepts it: UTF-8, finite numbers of at most 64 bits, unique names, bounded depth and count. Pure.

Whatever another parser might read differently is refused, with a message that never quotes the content.
"""

import json
import math
import re
from typing import Final, NoReturn

from kitemesh_contracts.errors import BadRequest, ErrorCode

MAX_DEPTH: Final = 32
MAX_VALUES: Final = 100_000
"""So many are decoded and validated in a fraction of a second; a body of many tiny ones would stop everybody else."""
_INT_LIMIT: Final = 2**63
_INT_DIGITS: Final = 20
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_BOM: Final = b"\xef\xbb\xbf"


class _Refused(ValueError):
    """The text is JSON, but not as accepted here."""


def _constant(name: str) -> NoReturn:
    raise _Refused(f"{name} is not a JSON number")


def _integer(digits: str) -> int:
    if len(digits) <= _INT_DIGITS:
        value = int(digits)
        if -_INT_LIMIT <= value < _INT_LIMIT:
            return value
    raise _Refused("an integer does not fit into 64 bits")


def _real(digits: str) -> float:
    value = float(digits)
    if math.isfinite(value):
        return value
    raise _Refused("a number is out of range")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Refused("an object has the same name twice")
    return members


_decode: Final = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_constant=_constant,
    parse_int=_integer,
    parse_float=_real,
).decode


def decode(data: bytes) -> object:
    """Decode a request body.

    Raises:
        BadRequest: It is empty, not JSON, not JSON as accepted here, or has too many values.

    """
    try:
        return _read(data)
    except UnicodeDecodeError as exc:
        raise _malformed(f"it is not UTF-8 at byte {exc.start}") from exc
    except UnicodeEncodeError as exc:
        raise _malformed("a string holds half of a surrogate pair") from exc
    except json.JSONDecodeError as exc:
        raise _malformed(f"{exc.msg[:1].lower()}{exc.msg[1:]} at character {exc.pos}") from exc
    except RecursionError as exc:
        raise _malformed(f"it is nested deeper than {MAX_DEPTH} levels") from exc
    except _Refused as exc:
        raise _malformed(str(exc)) from exc


def _read(data: bytes) -> object:
    if not data:
        raise _Refused("it is empty")
    if data.startswith(_BOM):
        raise _Refused("it begins with a byte order mark")
    if _count(data) > MAX_VALUES and _has_too_many(data):
        raise BadRequest(ErrorCode.REQUEST_TOO_LARGE, f"The body must not have more than {MAX_VALUES} values")
    value = _decode(data.decode())
    # Each level costs an opening bracket, so few brackets need no walk.
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH:
        _check_depth(value)
    if _SURROGATE.search(data):
        # The decoder joins pairs; what is left alone cannot be encoded.
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _count(data: bytes) -> int:
    """Count what begins a value: each has a comma or an opening bracket before it."""
    return data.count(b",") + data.count(b"{") + data.count(b"[")


def _has_too_many(data: bytes) -> bool:
    """Count the values without what only strings say."""
    bare = data.replace(rb"\\", b"").replace(rb"\"", b"")
    # A value has a name at the most, and either may be a string.
    return bare.count(b'"') > 4 * MAX_VALUES or _count(b"".join(bare.split(b'"')[::2])) > MAX_VALUES


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        level = [item for item in inner if isinstance(item, dict | list)]
        if not level:
            return
    raise _Refused(f"it is nested deeper than {MAX_DEPTH} levels")


def _malformed(why: str) -> BadRequest:
    return BadRequest(ErrorCode.REQUEST_MALFORMED, f"The body is not valid JSON: {why}")
