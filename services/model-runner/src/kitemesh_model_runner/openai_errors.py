"""What an OpenAI-compatible endpoint refuses a request for, by the known words of its error. Pure.

Only an error's `code` and `type` are compared, with the words here; nothing that an upstream wrote goes any further.
"""

from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

ERROR_MAX_BYTES: Final = 64 * 1024
"""What is longer is no error of such an endpoint, and is not read."""

Fault = Literal["context", "model"]
"""The prompt is too long for the model, or there is no such model."""

_FAULTS: Final[dict[str, Fault]] = {
    "context_length_exceeded": "context",
    "context_window_exceeded": "context",
    "exceed_context_size_error": "context",
    "model_not_found": "model",
    "model_not_found_error": "model",
    "model_not_available": "model",
    "deploymentnotfound": "model",
}


class _Error(Struct, frozen=True, kw_only=True):
    code: Any = None
    type: Any = None


class _Body(_Error, frozen=True, kw_only=True):
    """Some servers send the error itself."""

    error: Any = None


_decode: Final = msgspec.json.Decoder(_Body).decode


def fault_of(body: bytes) -> Fault | None:
    """Return what the body of a refusal says is wrong; `None` when it says nothing known."""
    try:
        found = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    error = found.error if isinstance(found.error, dict) else {"code": found.code, "type": found.type}
    return known_fault(error)


def known_fault(error: object) -> Fault | None:
    """Return what an error says is wrong; `None` when it says nothing known."""
    if not isinstance(error, dict):
        return None
    words = (error.get("code"), error.get("type"))
    return next((_FAULTS[word.lower()] for word in words if isinstance(word, str) and word.lower() in _FAULTS), None)
