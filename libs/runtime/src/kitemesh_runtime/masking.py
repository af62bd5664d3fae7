"""URLs without their secrets, for people to read. Pure. Rather too much is masked than too little."""

import re
from typing import Final

_NEXT: Final = re.compile(r",(?=\s*[a-z+]+://)")
_SECRET_OPTION: Final = re.compile(r"(?i)([?&][^=&]*(?:password|token|properties)[^=&]*)=[^&]*")


def mask_url(text: str) -> str:
    """Return a URL, or several separated by commas, with passwords, tokens and secret options as `***`."""
    return ",".join(_mask_one(each) for each in _NEXT.split(text))


def _mask_one(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    if not mark:
        return "***"
    # The last @: a password that was not escaped may hold one, and everything else that ends a host's name.
    credential, at, place = rest.rpartition("@")
    if at:
        user, colon, _ = credential.partition(":")
        credential = f"{user}:***" if colon else "***"
    return f"{scheme}://{credential}{at}" + _SECRET_OPTION.sub(r"\1=***", place)
