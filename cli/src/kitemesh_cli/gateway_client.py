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
from kitemesh_runtime.one_line import one_line
from kitemesh_runtime.settings import load

TIMEOUT_S: Final = 15.0
_REFUSED: Final = 400
_UNAUTHORIZED: Final = 401
_SHOWN_CHARS: Final = 500


class Place(NamedTuple):
    """A gateway.

    Attributes:
        key: Empty: requests go without one.

    """

    url: str
    key: str


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


def ask(place: Place, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Any = None) -> Any:
    """Send one request and return its decoded answer.

    Raises:
        Failed: The gateway does not answer, or refuses; the message is its own.

    """
    return asyncio.run(_ask(place, method, path, query or {}, body))


async def _ask(place: Place, method: str, path: str, query: Mapping[str, str], body: Any) -> Any:
    headers = {"Authorization": f"Bearer {place.key}"} if place.key else {}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            session.request(method, place.url + path, params=query, json=body, allow_redirects=False) as answer,
        ):
            status, text = answer.status, await answer.text(errors="replace")
    except TimeoutError as exc:
        raise Failed(f"the gateway at {place.url} did not answer within {TIMEOUT_S:.0f} s") from exc
    except (aiohttp.ClientError, OSError) as exc:
        raise Failed(_unreachable(place, exc)) from exc
    content = _decode(text)
    if status >= _REFUSED:
        raise Failed(_refusal(place, status, content))
    if not isinstance(content, dict):
        raise Failed(f"what answers at {place.url} is no kitemesh gateway (status {status})")
    return content


def _decode(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _refusal(place: Place, status: int, content: Any) -> str:
    detail = content.get("detail") if isinstance(content, dict) else None
    if not isinstance(detail, str) or not detail:
        return f"what answers at {place.url} is no kitemesh gateway, or an older one (status {status})"
    said = one_line(detail)[:_SHOWN_CHARS]
    code = content.get("code")
    named = f"{said} ({one_line(code)})" if isinstance(code, str) else said
    if status == _UNAUTHORIZED:
        return f"{named}; name the key in KITEMESH_KEY, or the data folder of a running cluster with --data"
    return named


def _unreachable(place: Place, error: Exception) -> str:
    where = f"the gateway does not answer at {place.url}"
    number = getattr(getattr(error, "os_error", error), "errno", None)
    reason = f" ({os.strerror(number)})" if isinstance(number, int) and number > 0 else ""
    return f"{where}{reason}; start a cluster here with `make up`, or name its gateway in KITEMESH_URL"
