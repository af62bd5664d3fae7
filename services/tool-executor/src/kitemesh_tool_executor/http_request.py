"""From a definition and a call's arguments to the request that is sent. Pure.

The scheme, host and port are the definition's, character for character; an argument fills one segment of the path or
one value of the query, and can be nothing else.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

import msgspec
from yarl import URL

MAX_URL_CHARACTERS: Final = 8000

_URL: Final = re.compile(r"\A(https?)://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?((?:[/?][!-~]*)?)\Z")
_PLACE: Final = re.compile(r"\{\{([A-Za-z0-9_.-]{1,64})\}\}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})

_encode: Final = msgspec.json.Encoder(order="sorted").encode


class BadTemplate(ValueError):
    """The definition's URL cannot be used; the message says why."""


class Unfit(ValueError):
    """The arguments cannot make a request; the message is for the model."""


class Request(NamedTuple):
    """What is sent.

    Attributes:
        url: Percent-encoded; to be used as it is.
        body: JSON; `None` sends none.

    """

    url: URL
    body: bytes | None


class Template:
    """A definition's URL, taken apart.

    Args:
        text: `https://host[:port]`, then a path and a query that may hold `{{argument}}`.

    Attributes:
        plain: It is `http://`.

    Raises:
        BadTemplate: It is nothing of the kind.

    """

    def __init__(self, text: str) -> None:
        match = _URL.match(text)
        if match is None:
            raise BadTemplate("needs http(s)://, a host without credentials, then a path and a query of ASCII")
        scheme, host, port, rest = match.groups()
        if "#" in rest or "\\" in rest:
            raise BadTemplate("may hold neither a fragment nor a backslash")
        if "{" in _PLACE.sub("", rest) or "}" in _PLACE.sub("", rest):
            raise BadTemplate("has braces that are no {{argument}}")
        try:
            self._origin: Final = str(URL(f"{scheme}://{host}{port or ''}")).rstrip("/")
        except ValueError as exc:
            raise BadTemplate("has an impossible host or port") from exc
        self.plain: Final = scheme == "http"
        path, _, query = rest.partition("?")
        self._segments: Final = (path or "/").split("/")
        self._query: Final = query
        self._used: Final = frozenset(_PLACE.findall(rest))

    def render(self, method: str, query: Sequence[str], arguments: Mapping[str, Any]) -> Request:
        """Fill in the arguments.

        Args:
            method: GET puts into the query what is used nowhere else, every other method into the body.
            query: Names of arguments that go into the query.
            arguments: Decoded JSON.

        Raises:
            Unfit: An argument is missing, or cannot be where it should go.

        """
        path = "/".join(_fill_segment(each, arguments) for each in self._segments)
        pairs = [_PLACE.sub(lambda place: _value(place[1], arguments), self._query)] if self._query else []
        left = {name: value for name, value in arguments.items() if name not in self._used and name not in query}
        named = [*query, *sorted(left)] if method == "GET" else query
        pairs += [pair for name in named for pair in _pairs(name, arguments.get(name))]
        text = f"{self._origin}{path}{'?' if pairs else ''}{'&'.join(pairs)}"
        if len(text) > MAX_URL_CHARACTERS:
            raise Unfit("The arguments are too long for an address")
        body = _encode(left) if method != "GET" and (left or method in _WITH_BODY) else None
        return Request(URL(text, encoded=True), body)


def _fill_segment(segment: str, arguments: Mapping[str, Any]) -> str:
    names = _PLACE.findall(segment)
    if not names:
        return segment
    for name in names:
        text = _text(name, arguments)
        if not text or _CONTROL.search(text) or _climbs(text) or _climbs(unquote(text)):
            raise Unfit(f"The argument {name} cannot be part of a path")
    filled = _PLACE.sub(lambda place: _value(place[1], arguments), segment)
    if _climbs(unquote(filled)):
        raise Unfit(f"The argument {names[0]} cannot be part of a path")
    return filled


def _climbs(text: str) -> bool:
    # Servers differ in when they decode a segment, and some take a backslash for a slash.
    return any(part in {".", ".."} for part in re.split(r"[/\\]", text))


def _value(name: str, arguments: Mapping[str, Any]) -> str:
    return quote(_text(name, arguments), safe="")


def _text(name: str, arguments: Mapping[str, Any]) -> str:
    value = arguments.get(name)
    if value is None:
        raise Unfit(f"The argument {name} is missing")
    if isinstance(value, dict | list):
        raise Unfit(f"The argument {name} cannot be part of an address")
    return value if isinstance(value, str) else _encode(value).decode()


def _pairs(name: str, value: object) -> list[str]:
    """Write one argument as `name=value`: a list repeats the name, null and absent are left out."""
    if value is None:
        return []
    if isinstance(value, list) and not any(isinstance(each, dict | list) for each in value):
        return [pair for each in value for pair in _pairs(name, each)]
    text = value if isinstance(value, str) else _encode(value).decode()
    return [f"{quote(name, safe='')}={quote(text, safe='')}"]
