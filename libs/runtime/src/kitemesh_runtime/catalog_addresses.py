"""Which URLs and headers a catalog may hold: a fixed origin, nothing secret spelled out. Pure.

Whether an address may be connected to is decided when it is connected to, and not here.
"""

import re
from collections.abc import Iterator
from typing import Final

from kitemesh_runtime import templates
from kitemesh_runtime.secret_names import is_secret_name

_HEADER_NAME: Final = re.compile(r"\A[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_AUTHORITY: Final = re.compile(r"\A(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?\Z")
_REST: Final = re.compile(r"\A(?:[/?](?:(?![\\{}#])[!-~])*)?\Z")
_ARGUMENT: Final = re.compile(r"\A[A-Za-z0-9_.-]{1,64}\Z")
_LAST_PORT: Final = 65535
_OURS: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "idempotency-key",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_OUR_PREFIXES: Final = ("mcp-", "x-kitemesh-")


def is_settable(name: str) -> bool:
    """Say whether a definition may set a header: not what frames a message, or says for whom it is, or is ours."""
    lower = name.lower()
    return _HEADER_NAME.match(name) is not None and lower not in _OURS and not lower.startswith(_OUR_PREFIXES)


def find_in_url(place: str, url: str, *, may_be_plain: bool) -> Iterator[str]:
    """Yield what is wrong with a URL, which may hold `{{argument}}` behind its host.

    Args:
        place: What each sentence begins with.
        url: As the catalog has it.
        may_be_plain: http:// is allowed, too.

    """
    scheme, mark, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if not mark or scheme not in {"http", "https"}:
        yield f"{place}: must begin with https://"
    elif "{{" in authority:
        yield f"{place}: the host must be fixed, without {{{{…}}}}"
    elif "@" in authority:
        yield f"{place}: may not hold a user or password"
    elif not _is_authority(authority):
        yield f"{place}: has no valid host and port"
    elif _REST.match(templates.fill(rest[len(authority) :], lambda _: "")) is None:
        yield f"{place}: may hold nothing but ASCII without blanks, braces, backslashes and fragments"
    elif not all(map(_ARGUMENT.match, templates.names(url))):
        yield f"{place}: an argument in a URL is 1 to 64 of A-Z a-z 0-9 _ . -"
    elif scheme == "http" and not may_be_plain:
        yield f"{place}: must begin with https://, or allow_networks must say which networks http:// may go to"


def find_in_headers(place: str, headers: object) -> Iterator[str]:
    """Yield what is wrong with headers, the values being text or a reference to a secret."""
    if not isinstance(headers, dict):
        return
    for name, value in headers.items():
        if not isinstance(name, str):
            continue
        if _HEADER_NAME.match(name) is None:
            yield f"{place}: {name!r} is no header's name"
        elif not is_settable(name):
            yield f"{place}.{name}: is not the catalog's to set"
        elif isinstance(value, str) and is_secret_name(name):
            yield f"{place}.{name}: a secret is given by reference, env or file"
        elif isinstance(value, str) and not (value.isascii() and value.isprintable()):
            yield f"{place}.{name}: may hold nothing but printable ASCII"


def _is_authority(text: str) -> bool:
    match = _AUTHORITY.match(text)
    return match is not None and (match[1] is None or 0 < int(match[1]) <= _LAST_PORT)
