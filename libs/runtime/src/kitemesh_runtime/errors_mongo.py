"""What the driver raises, said in our words, in one place.

It judges by what a caller can do: wait (`Unavailable`), reload (`Conflict`), change the data (`BadRequest`), or
nothing (`Bug`). It never repeats the server's text, which may hold content.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import structlog
from bson.errors import BSONError, InvalidDocument
from pymongo.errors import (
    ConnectionFailure,
    DocumentTooLarge,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
)

from kitemesh_contracts.errors import BadRequest, Bug, Conflict, ErrorCode, KitemeshError, Unavailable
from kitemesh_runtime.metrics import STORE_DENIED

log: Final = structlog.get_logger()

UNENCODABLE: Final = (InvalidDocument, UnicodeEncodeError, OverflowError)
"""Raised before anything is sent: the data is none that BSON can hold."""

DRIVER_ERRORS: Final = (PyMongoError, BSONError, UnicodeEncodeError, OverflowError, TimeoutError)
"""Everything a driver call may raise that `translate` understands."""

RETRY_AFTER_S: Final = 2.0

_DUPLICATE: Final = frozenset({11000, 11001, 12582})
_REFUSED: Final = frozenset({241})
"""ConversionFailure: how our own pipelines refuse a document that is not as they need it."""

_TOO_LARGE: Final = frozenset({10334, 17280, 17419, 17420})
_DENIED: Final = 13
_COMMAND: Final = re.compile(r'execute command \{ (\w+): "([\w.]+)"')
"""What the server repeats of a command that it denied goes on with content; this much of it is ours."""

_PASSING: Final = frozenset(
    {
        *(6, 7, 89, 9001),  # host unreachable, not found, network time-out, socket
        *(91, 11600, 11602, 189, 10107, 10058, 13435, 13436),  # shutting down, stepping down, no primary
        *(50, 64, 100, 134, 202, 262),  # out of time; too few members to acknowledge or to read from
        *(18, 391),  # not authenticated: an operator heals it, and until then nothing is possible
        *(14031, 112),  # disk full, write conflict
    }
)


def duplicate() -> Conflict:
    """Build the error of a key that is taken."""
    return Conflict(ErrorCode.DUPLICATE, "it exists already")


def unavailable() -> Unavailable:
    """Build the error of a store that does not answer."""
    return Unavailable(ErrorCode.STORE_DOWN, "the store is not available", retry_after_s=RETRY_AFTER_S)


def translate_code(code: int | None) -> KitemeshError:
    """Say what a server's error code means."""
    if code in _DUPLICATE:
        return duplicate()
    if code in _REFUSED:
        return Conflict(ErrorCode.STALE, "it is not as it was expected to be")
    if code in _PASSING:
        return unavailable()
    if code in _TOO_LARGE:
        return BadRequest(ErrorCode.REQUEST_TOO_LARGE, "it is too large to store")
    return Bug(f"the store refused an operation with code {code}")


def translate(exc: Exception) -> KitemeshError:
    """Say what one of `DRIVER_ERRORS` means."""
    if isinstance(exc, DocumentTooLarge):
        return BadRequest(ErrorCode.REQUEST_TOO_LARGE, "it is too large to store")
    if isinstance(exc, UNENCODABLE):
        return BadRequest(ErrorCode.REQUEST_INVALID, "it holds text or numbers that cannot be stored")
    if isinstance(exc, ConnectionFailure | WriteConcernError | TimeoutError):
        return unavailable()
    if isinstance(exc, PyMongoError) and exc.timeout:
        return unavailable()
    if isinstance(exc, OperationFailure):
        return _denied(exc) if exc.code == _DENIED else translate_code(exc.code)
    return Bug(f"the store's driver raised {type(exc).__name__}")


def _denied(exc: OperationFailure) -> Bug:
    """Tell the operator what the service's role lacks: it is no outage, and waiting heals nothing."""
    found = _COMMAND.search(str(exc))
    command, collection = found.groups() if found else ("", "")
    STORE_DENIED.inc()
    log.error("store.denied", command=command, collection=collection)
    return Bug(f"the store does not let this service {command or 'do that'} {collection}".rstrip())


def translate_group(details: Mapping[str, Any], size: int) -> dict[int, KitemeshError]:
    """Read the details of a failed unordered group of `size` operations: index to its error.

    When the server could not promise durability, every operation without an error of its own is `Unavailable`.
    """
    errors = {int(entry["index"]): translate_code(entry.get("code")) for entry in details.get("writeErrors", ())}
    if details.get("writeConcernErrors"):
        errors.update({index: unavailable() for index in range(size) if index not in errors})
    return errors
