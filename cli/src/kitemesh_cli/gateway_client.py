"""How verbs ask a gateway: which one, with which key, and what its refusals say to a person."""

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import aiohttp

from kitemesh_cli.data_folder import DataFolder, read_text
from kitemesh_cli.dev_lock import holder
from kitemesh_cli.failures import Failed
from kitemesh_cli.settings import ClientSettings
from kitemesh_runtime.masking import mask_url
from kitemesh_runtime.one_line import one_line
from kitemesh_runtime.settings import load

TIMEOUT_S: Final = 15.0
_REFUSED: Final = 400
_UNAUTHORIZED: Final = 401
_SHOWN_CHARS: Final = 500
_START: Final = "start a cluster here with `make up`, or name its gateway in KITEMESH_URL"
_MOST_BYTES: Final = 64 * 1024 * 1024
"""Of an answer: more than any page of a gateway's has."""


class Place(NamedTuple):
    """A gateway.

    Attributes:
        key: Empty: requests go without one.

    """

    url: str
    key: str

    @property
    def address(self) -> str:
        """The URL as it may be shown: a proxy before the gateway may want a password in it."""
        return mask_url(self.url)


def find_gateway(folder: DataFolder, environ: Mapping[str, str]) -> Place:
    """Find the gateway that the environment names, else the one that runs from the folder.

    Raises:
        SettingsError: With every problem found.

    """
    settings = load(ClientSettings, environ)
    running = holder(folder.lock)
    url = settings.url.rstrip("/")
    if "url" not in settings.model_fields_set and running is not None:
        url = running.url
    key = settings.key.get_secret_value()
    # The key kept here is for the cluster that runs here and is sent to no other.
    if not key and running is not None and url == running.url:
        key = read_text(folder.key) or ""
    return Place(url, key)


def ask(
    place: Place,
    method: str,
    path: str,
    *,
    query: Mapping[str, str] | None = None,
    body: Any = None,
    timeout_s: float = TIMEOUT_S,
) -> Any:
    """Send one request and return its decoded answer.

    Raises:
        Failed: The gateway does not answer, or refuses; the message is its own.

    """
    return asyncio.run(_ask(place, method, path, query or {}, body, timeout_s=timeout_s))


async def _ask(place: Place, method: str, path: str, query: Mapping[str, str], body: Any, *, timeout_s: float) -> Any:
    headers = {"Authorization": f"Bearer {place.key}"} if place.key else {}
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            session.request(method, place.url + path, params=query, json=body, allow_redirects=False) as answer,
        ):
            status, text = answer.status, await read_most(answer, _MOST_BYTES)
    except TimeoutError as exc:
        raise Failed(f"the gateway at {place.address} did not answer within {timeout_s:.0f} s") from exc
    except (aiohttp.ClientError, OSError, ValueError) as exc:
        raise Failed(f"the gateway does not answer at {place.address}{_because(exc)}; {_START}") from exc
    content = _decode(text)
    if status >= _REFUSED:
        raise Failed(_refusal(place, status, content))
    if not isinstance(content, dict):
        raise Failed(f"what answers at {place.address} is no kitemesh gateway (status {status})")
    return content


def _decode(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _refusal(place: Place, status: int, content: Any) -> str:
    detail = content.get("detail") if isinstance(content, dict) else None
    if not isinstance(detail, str) or not detail:
        return f"what answers at {place.address} is no kitemesh gateway, or an older one (status {status})"
    said = one_line(detail)[:_SHOWN_CHARS]
    code = content.get("code")
    named = f"{said} ({one_line(code)})" if isinstance(code, str) else said
    if status == _UNAUTHORIZED:
        return f"{named}; name the key in KITEMESH_KEY, or the data folder of a running cluster with --data"
    return named


def why_unreachable(error: Exception) -> str:
    """Return why nothing was answered, or nothing: in the client's own words there may be the URL's password."""
    number = getattr(getattr(error, "os_error", error), "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    if isinstance(error, ValueError):
        return "the URL or the key cannot be used"
    return ""


async def read_most(answer: aiohttp.ClientResponse, most_bytes: int) -> str:
    """Return an answer's text, cut where it is longer."""
    found = bytearray()
    async for part in answer.content.iter_any():
        found += part
        if len(found) >= most_bytes:
            break
    return found[:most_bytes].decode(errors="replace")


def _because(error: Exception) -> str:
    why = why_unreachable(error)
    return f" ({why})" if why else ""
