"""Identifiers: their alphabet, and ids derived from other ids.

Random and time-ordered ids come from the caller's clock and entropy, so this module stays a function of its arguments.
"""

import re
import uuid
from typing import Final

_ID: Final = re.compile(r"\A[A-Za-z0-9_-]{1,64}\Z")
_NAMESPACE: Final = uuid.UUID("6d9c3a52-5a0f-5b0e-9a36-0c7a3f6b1d11")


def is_id(text: str) -> bool:
    """Tell whether a text may be used as an id, and so as a subject token."""
    return _ID.match(text) is not None


def uuid7(now_ms: int, entropy: bytes) -> str:
    """Build a time-ordered UUID (RFC 9562, version 7).

    Args:
        now_ms: Milliseconds since the epoch; 48 bits are used.
        entropy: Ten random bytes.

    """
    value = (now_ms & 0xFFFF_FFFF_FFFF) << 80 | int.from_bytes(entropy[:10], "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def call_id(turn: str, step: int, index: int) -> str:
    """Derive the execution id of a tool call; a repeated step proposes the same one."""
    return str(uuid.uuid5(_NAMESPACE, f"{turn}:{step}:call:{index}"))
