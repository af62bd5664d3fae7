"""Fills the secrets of a definition in, for the one moment in which they are used."""

from collections.abc import Mapping
from typing import Final

import structlog

from kitemesh_contracts.errors import ErrorCode
from kitemesh_runtime.catalog_addresses import is_settable
from kitemesh_runtime.catalog_secret import Secret
from kitemesh_tool_executor.tool import CallFailed

log: Final = structlog.get_logger()


def fill_headers(place: str, headers: Mapping[str, str | Secret]) -> dict[str, str]:
    """Return the definition's headers with their secrets.

    Args:
        place: Where in the catalog they are, for the log.
        headers: Read anew for each call, so that a rotated secret needs no restart.

    Raises:
        CallFailed: A secret is missing, or a header cannot be sent.

    """
    for name in headers:
        if not is_settable(name):
            log.error("tool.header_refused", place=place, header=name)
            raise not_configured()
    return {name: fill(f"{place}.{name}", value) for name, value in headers.items()}


def fill(place: str, value: str | Secret) -> str:
    """Return a value, or the secret that it names, for a header.

    Raises:
        CallFailed: The secret is missing, or is nothing that can stand in a header.

    """
    text = read(place, value)
    if not (text.isascii() and text.isprintable()):
        log.error("tool.secret_unfit", place=place)
        raise not_configured()
    return text


def read(place: str, value: str | Secret) -> str:
    """Return a value, or the secret that it names, whatever is in it.

    Raises:
        CallFailed: The secret is missing.

    """
    text = value if isinstance(value, str) else value.read()
    if text is None:
        log.error("tool.secret_missing", place=place)
        raise not_configured()
    return text


def not_configured() -> CallFailed:
    """Return the failure of a tool whose definition lacks something; the log says what."""
    return CallFailed(ErrorCode.TOOL_FAILED, "The tool is not configured", sent=False)
