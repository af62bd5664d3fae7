"""How likely the tokens of a chunk were, as OpenAI-compatible endpoints say it: a pure function."""

from typing import Final

import msgspec
from msgspec import Raw, Struct

from kitemesh_contracts.content import Logprob, TopLogprob

MAX_TOP: Final = 32
MAX_TOKEN: Final = 1024
"""Characters, and bytes, of one token."""


class ChunkRefused(Exception):
    """A chunk that is no chunk, or calls that nobody makes."""


class _Top(Struct, frozen=True, kw_only=True):
    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None


class _Token(Struct, frozen=True, kw_only=True):
    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    top_logprobs: list[_Top] | None = None


class _Logprobs(Struct, frozen=True, kw_only=True):
    content: list[_Token] | None = None
    refusal: list[_Token] | None = None


_decode_logprobs: Final = msgspec.json.Decoder(_Logprobs | None).decode


def read_logprobs(raw: Raw) -> tuple[Logprob, ...]:
    """Return the tokens that a chunk has more of.

    Raises:
        ChunkRefused: They are none, or more than can travel.

    """
    try:
        told = _decode_logprobs(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ChunkRefused from exc
    if told is None:
        return ()
    tokens = (*(told.content or ()), *(told.refusal or ()))
    if not all(map(_is_bounded, tokens)):
        raise ChunkRefused
    return tuple(
        Logprob(
            token=each.token,
            logprob=each.logprob,
            bytes=each.bytes,
            top=tuple(
                TopLogprob(token=top.token, logprob=top.logprob, bytes=top.bytes) for top in each.top_logprobs or ()
            ),
        )
        for each in tokens
    )


def _is_bounded(token: _Token) -> bool:
    """Tell whether one token with all that could have stood in its place can travel."""
    others = token.top_logprobs or []
    every: tuple[_Token | _Top, ...] = (token, *others)
    return len(others) <= MAX_TOP and all(len(each.token) + len(each.bytes or ()) <= MAX_TOKEN for each in every)
