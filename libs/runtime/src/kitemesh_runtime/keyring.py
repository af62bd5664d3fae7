"""API keys as text: how one is made, recognised and digested. Pure; what keys exist is the store's business.

`km_<8 id><43 random><6 checksum>`. The checksum refuses typing errors without a lookup; the digest (HMAC-SHA256 under
the installation's pepper) is all that is ever stored.
"""

import base64
import hashlib
import hmac
import re
import zlib
from typing import Final, NamedTuple

_KEY: Final = re.compile(r"\Akm_([A-Za-z0-9]{8})([A-Za-z0-9_-]{43})([A-Za-z0-9]{6})\Z")
_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_ID_CHARACTERS: Final = 8
_CHECKSUM_CHARACTERS: Final = 6
ENTROPY_BYTES: Final = 40


class NewKey(NamedTuple):
    """A key that was just made; `text` is shown once and kept by nobody."""

    id: str
    text: str


def _base62(value: int, characters: int) -> str:
    digits = []
    for _ in range(characters):
        value, digit = divmod(value, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def make(entropy: bytes) -> NewKey:
    """Make a key of `ENTROPY_BYTES` random bytes."""
    key_id = _base62(int.from_bytes(entropy[:8], "big"), _ID_CHARACTERS)
    secret = base64.urlsafe_b64encode(entropy[8:40]).decode().rstrip("=")
    body = f"km_{key_id}{secret}"
    return NewKey(key_id, body + _base62(zlib.crc32(body.encode()), _CHECKSUM_CHARACTERS))


def parse(text: str) -> str | None:
    """Return the id of a well-formed key, or `None`."""
    match = _KEY.match(text)
    if match is None:
        return None
    checksum = _base62(zlib.crc32(text[:-_CHECKSUM_CHARACTERS].encode()), _CHECKSUM_CHARACTERS)
    return match.group(1) if hmac.compare_digest(checksum.encode(), match.group(3).encode()) else None


def digest(text: str, pepper: bytes) -> str:
    """Return what is stored of a key: 64 hexadecimal digits."""
    return hmac.new(pepper, text.encode(), hashlib.sha256).hexdigest()
