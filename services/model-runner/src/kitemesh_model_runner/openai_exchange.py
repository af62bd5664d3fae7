"""One try against an OpenAI-compatible endpoint: post, read the stream, end with a whole answer or with `Broken`.

An upstream's own words are never shown: what is kept of a failure is a code, a status and what the request lacks.
"""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

import aiohttp

from kitemesh_contracts.deltas import Delta
from kitemesh_contracts.errors import ErrorCode
from kitemesh_model_runner.deadline import MovingDeadline
from kitemesh_model_runner.openai_choices import ErrorReported
from kitemesh_model_runner.openai_chunks import AnswerReader
from kitemesh_model_runner.openai_errors import ERROR_MAX_BYTES, Fault, fault_of
from kitemesh_model_runner.openai_logprobs import ChunkRefused
from kitemesh_model_runner.provider import Generated, Sink
from kitemesh_model_runner.retries import retry_after_s
from kitemesh_model_runner.sse_parser import EventTooLong, SseParser
from kitemesh_runtime.clock import Clock

TAIL_S: Final = 2.0
"""How long the count and the end mark may take once the model has said why it stopped, and the words of a refusal."""

_MS: Final = 1000.0
_EXPLAINED: Final = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)
"""Refusals that may be about the model, and not about the request or us."""


class Broken(Exception):
    """A try failed.

    Attributes:
        again: Another try may succeed and nothing was given out yet.
        status: What the upstream answered; `None` when it answered nothing, or 200.
        retry_after_s: How long it asked to be left alone.
        model_missing: It has no such model.

    """

    def __init__(
        self,
        code: ErrorCode,
        *,
        again: bool,
        status: int | None = None,
        retry_after_s: float | None = None,
        model_missing: bool = False,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.again = again
        self.status = status
        self.retry_after_s = retry_after_s
        self.model_missing = model_missing


class Patience(NamedTuple):
    """How long to wait for what, in seconds; `end` is loop time."""

    connect: aiohttp.ClientTimeout
    first_token_s: float
    silence_s: float
    end: float


class Exchange:
    """One request and its answer.

    Args:
        reader: Fresh; it says afterwards whether the answer is whole.

    """

    def __init__(self, reader: AnswerReader, sink: Sink, patience: Patience, clock: Clock) -> None:
        self._reader: Final = reader
        self._sink: Final = sink
        self._patience: Final = patience
        self._clock: Final = clock
        self._has_begun = False

    async def run(self, session: aiohttp.ClientSession, url: str, body: bytes, headers: Mapping[str, str]) -> Generated:
        """Return the end of a whole answer, its deltas having gone to the sink.

        Raises:
            Broken: There is none.

        """
        try:
            async with MovingDeadline(end=self._patience.end) as deadline:
                deadline.allow(self._patience.first_token_s)
                response = await session.post(
                    url, data=body, headers=headers, timeout=self._patience.connect, allow_redirects=False
                )
                try:
                    fault = await _fault(response) if response.status in _EXPLAINED else None
                    self._check(response, fault)
                    await self._read(response.content, deadline)
                finally:
                    # Before the answer's end this breaks the connection off, which is what stops the upstream.
                    response.close()
        except (TimeoutError, aiohttp.ClientError, OSError, ChunkRefused, EventTooLong) as exc:
            # Whatever comes once the model has said why it stopped, the answer is whole.
            if not self._reader.is_whole:
                raise self._broken(exc) from exc
        except ErrorReported as exc:
            if exc.fault == "context":
                raise Broken(ErrorCode.UPSTREAM_CONTEXT, again=False) from exc
            raise Broken(ErrorCode.UPSTREAM_FAILED, again=not self._has_begun) from exc
        missing = self._reader.complete()
        finish, calls = self._reader.result()
        if finish is None or not self._reader.is_whole:
            raise Broken(ErrorCode.UPSTREAM_CUT, again=not self._has_begun)
        if missing:
            await self._sink(missing)
        return Generated(finish=finish, usage=self._reader.usage, calls=calls, alternatives=self._reader.alternatives())

    async def _read(self, content: aiohttp.StreamReader, deadline: MovingDeadline) -> None:
        parser = SseParser()
        reader = self._reader
        while chunk := await content.readany():
            if await self._give(parser.feed(chunk)):
                deadline.allow(self._patience.silence_s)
            if reader.is_whole:
                deadline.allow(TAIL_S)
        await self._give(parser.finish())

    async def _give(self, events: list[bytes]) -> bool:
        """Give the sink what the events add, if anything, before whatever is wrong with them is raised.

        Tells whether they add anything, be it to a choice that is kept until the end.
        """
        deltas: list[Delta] = []
        others = self._reader.others
        try:
            self._reader.read(events, deltas)
        finally:
            if deltas:
                self._has_begun = True
                await self._sink(deltas)
        return bool(deltas) or self._reader.others > others

    def _check(self, response: aiohttp.ClientResponse, fault: Fault | None) -> None:
        status = response.status
        headers = response.headers
        if status != HTTPStatus.OK:
            wait = retry_after_s(headers, now_s=self._clock.now_ms() / _MS)
            if status == HTTPStatus.TOO_MANY_REQUESTS:
                raise Broken(ErrorCode.UPSTREAM_LIMITED, again=True, status=status, retry_after_s=wait)
            if status == HTTPStatus.REQUEST_TIMEOUT:
                raise Broken(ErrorCode.UPSTREAM_TIMEOUT, again=True, status=status)
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise Broken(ErrorCode.UPSTREAM_FAILED, again=True, status=status, retry_after_s=wait)
            if fault == "context":
                raise Broken(ErrorCode.UPSTREAM_CONTEXT, again=False, status=status)
            missing = fault == "model" or status == HTTPStatus.NOT_FOUND
            raise Broken(ErrorCode.UPSTREAM_REFUSED, again=False, status=status, model_missing=missing)
        media_type = headers.get("Content-Type", "text/event-stream")
        encoding = headers.get("Content-Encoding", "identity")
        if not media_type.lower().startswith("text/event-stream") or encoding.lower() != "identity":
            raise Broken(ErrorCode.UPSTREAM_FAILED, again=False, status=status)

    def _broken(self, exc: Exception) -> Broken:
        again = not self._has_begun
        match exc:
            case TimeoutError():
                return Broken(ErrorCode.UPSTREAM_TIMEOUT, again=again)
            case aiohttp.ClientConnectorError():
                return Broken(ErrorCode.UPSTREAM_UNREACHABLE, again=True)
            case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError() | OSError():
                return Broken(ErrorCode.UPSTREAM_CUT, again=again)
            case _:
                return Broken(ErrorCode.UPSTREAM_FAILED, again=False)


async def _fault(response: aiohttp.ClientResponse) -> Fault | None:
    """Read what a refusal is for, as far as that is quick and short."""
    body = b""
    try:
        async with asyncio.timeout(TAIL_S):
            while len(body) <= ERROR_MAX_BYTES and (chunk := await response.content.readany()):
                body += chunk
    except (TimeoutError, aiohttp.ClientError, OSError):
        # The status says enough.
        return None
    return fault_of(body) if len(body) <= ERROR_MAX_BYTES else None
