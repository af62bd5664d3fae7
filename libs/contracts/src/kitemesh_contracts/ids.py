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


def hold_id(turn: str, step: int, attempt: int = 0) -> str:
    """Derive the id of a step's hold, in public its approval id; a repeated step proposes the same one.

    Args:
        turn: Turn id.
        step: Step number.
        attempt: Of the model's answer, should the first hold be one of other calls and decided already.

    """
    return str(uuid.uuid5(_NAMESPACE, f"{turn}:{step}:hold:{attempt}" if attempt else f"{turn}:{step}:hold"))


def notice_id(subject: str, what: str, webhook: str) -> str:
    """Derive the execution id of one webhook's call for one thing that happened."""
    return str(uuid.uuid5(_NAMESPACE, f"{subject}:{what}:notice:{webhook}"))
