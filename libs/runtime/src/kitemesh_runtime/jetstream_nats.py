"""JetStream's JSON interface: one question, one typed answer, one error. It does not know what the streams are for."""

import asyncio
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from kitemesh_contracts.codec import encode
from kitemesh_contracts.errors import ErrorCode, KitemeshError, Unavailable
from kitemesh_runtime.bus import Bus

T = TypeVar("T")

API: Final = "$JS.API"
TIMEOUT_S: Final = 5.0
RETRY_S: Final = 0.1

NOT_FOUND: Final = 404
_NOT_READY: Final = 503


class ApiError(Struct, frozen=True, kw_only=True):
    """JetStream's own error."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class Refused(KitemeshError):
    """JetStream answered, and the answer was no."""

    def __init__(self, question: str, error: ApiError) -> None:
        super().__init__(ErrorCode.INTERNAL, f"{question}: {error.description} (JetStream error {error.err_code})")
        self.error = error


class _Failure(Struct, frozen=True, kw_only=True):
    error: ApiError | None = None


_decode_failure: Final = msgspec.json.Decoder(_Failure).decode


async def ask(
    bus: Bus,
    question: str,
    body: dict[str, Any],
    decoder: msgspec.json.Decoder[T],
    *,
    timeout_s: float = TIMEOUT_S,
) -> T:
    """Ask JetStream, again and again while it has no leader or is still starting.

    Args:
        bus: The connection.
        question: What follows `$JS.API.`; asking it twice must be the same as once.
        body: The question's JSON.
        decoder: Reads the answer.
        timeout_s: For all tries together.

    Raises:
        Refused: It said no.
        Unavailable: It did not answer in time.

    """
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout_s
    payload = encode(body)
    while True:
        try:
            return await _ask_once(bus, question, payload, decoder, timeout_s=max(end - loop.time(), RETRY_S))
        except Unavailable:
            if loop.time() >= end:
                raise
        await asyncio.sleep(RETRY_S)


async def _ask_once(
    bus: Bus,
    question: str,
    payload: bytes,
    decoder: msgspec.json.Decoder[T],
    *,
    timeout_s: float,
) -> T:
    answer = await bus.request(f"{API}.{question}", payload, timeout_s=timeout_s)
    try:
        error = _decode_failure(answer).error
        if error is None:
            return decoder.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise Unavailable(ErrorCode.BUS_DOWN, f"JetStream's answer to {question} was not understood.") from exc
    if error.code == _NOT_READY:
        raise Unavailable(ErrorCode.BUS_DOWN, f"JetStream is not ready: {error.description}.")
    raise Refused(question, error)
