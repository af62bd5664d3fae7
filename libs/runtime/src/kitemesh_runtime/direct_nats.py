"""Reading what a stream keeps, without a consumer: JetStream's Direct Get, one question, many messages for an answer.

An answer comes in pages that the server bounds in bytes; each message names the one before it, so a part that was lost
is noticed, and the page asked for again. Any replica of a stream answers: what was acknowledged a moment ago may be
missing. It does not know what the messages mean.
"""

import asyncio
import itertools
import secrets
from typing import Any, Final

from kitemesh_contracts.codec import encode
from kitemesh_contracts.errors import Bug, ErrorCode, KitemeshError, Unavailable
from kitemesh_runtime.bus import Stored
from kitemesh_runtime.client_nats import GuardedClient
from kitemesh_runtime.jetstream_nats import API, NOT_FOUND
from kitemesh_runtime.wire_nats import header_of, place_of, pub, status_of, status_text, subject_of

PAGE_BYTES: Final = 1024 * 1024
SILENCE_S: Final = 0.8
"""How long nothing may arrive before a question is asked again: another replica may answer."""
RETRY_S: Final = 0.1

_END: Final = 204
_TOO_MANY: Final = 413
_NO_RESPONDERS: Final = 503


class _NoStream(Unavailable):
    """Nobody answers for the stream: waiting for it is for those who know that it will come."""


class _Page:
    """One answer under way."""

    __slots__ = ("done", "error", "found", "last", "pending", "question", "up_to")

    def __init__(self, question: bytes, done: asyncio.Future[None]) -> None:
        self.question = question
        self.done = done
        self.error: KitemeshError | None = None
        self.found: list[Stored] = []
        self.last = 0
        self.pending = 0
        self.up_to = 0

    def take(self, block: bytes | None, payload: bytes) -> None:
        """Take a message, or the end.

        Raises:
            ValueError: A header is missing or no number.

        """
        if block is None:
            raise ValueError("no headers")
        status = status_of(block)
        if status:
            self._end(status, block)
            return
        subject, sequence, previous = place_of(block)
        if previous != self.last:
            self.fail(_down("a part of its answer was lost"))
        self.last = sequence
        self.found.append(Stored(sequence, subject, payload))

    def fail(self, error: KitemeshError) -> None:
        """End with an error, unless it ended already."""
        if not self.done.done():
            self.error = error
            self.done.set_result(None)

    def _end(self, status: int, block: bytes) -> None:
        if status == _END:
            if int(header_of(block, "Nats-Last-Sequence") or 0) != self.last:
                self.fail(_down("a part of its answer was lost"))
            self.pending = int(header_of(block, "Nats-Num-Pending") or 0)
            self.up_to = int(header_of(block, "Nats-UpTo-Sequence") or 0)
        elif status == _NO_RESPONDERS:
            self.fail(_NoStream(ErrorCode.BUS_DOWN, "The message bus has no such stream to read from."))
        elif status == _TOO_MANY:
            self.fail(Bug("more subjects than the server looks up at once"))
        elif status != NOT_FOUND:
            self.fail(Bug(f"the server refused to look messages up: {status} {status_text(block)}"))
        if not self.done.done():
            self.done.set_result(None)


def _down(why: str) -> Unavailable:
    return Unavailable(ErrorCode.BUS_DOWN, f"The message bus cannot tell what it keeps: {why}.")


class DirectReads:
    """The reads of one connection."""

    def __init__(self, client: GuardedClient, inbox_prefix: str) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._inbox = f"{inbox_prefix}.{secrets.token_hex(8)}."
        self._cut = len(self._inbox)
        self._numbers = itertools.count(1)
        self._pages: dict[bytes, _Page] = {}
        self._closed = False
        self._listening = False
        client.on_lost(self._lost)
        client.on_denied(self._denied)

    @property
    def under_way(self) -> int:
        """How many answers are waited for."""
        return len(self._pages)

    async def last_of(self, stream: str, subject: str, *, timeout_s: float) -> list[Stored]:
        """Return the last message of each subject that a wildcard covers, oldest first.

        Raises:
            Unavailable: No whole answer in time, or at once when there is no such stream.
            Bug: More than 1,024 subjects.

        """
        deadline = self._loop.time() + timeout_s
        question: dict[str, Any] = {"multi_last": [subject], "max_bytes": PAGE_BYTES}
        page = await self._ask(stream, question, deadline)
        found = page.found
        while page.pending:
            # As the stream was for the first page: what was sent again since is not told twice.
            page = await self._ask(stream, {**question, "seq": page.last + 1, "up_to_seq": page.up_to}, deadline)
            found += page.found
        return found

    async def since(self, stream: str, subject: str, sequence: int, *, limit: int, timeout_s: float) -> list[Stored]:
        """Return at most `limit` messages of subjects that a wildcard covers from a sequence on, oldest first.

        Raises:
            Unavailable: No whole answer in time, or at once when there is no such stream.

        """
        deadline = self._loop.time() + timeout_s
        found: list[Stored] = []
        while limit > len(found):
            question = {
                "next_by_subj": subject,
                "seq": max(sequence, 1),
                "batch": limit - len(found),
                "max_bytes": PAGE_BYTES,
            }
            page = await self._ask(stream, question, deadline)
            found += page.found
            if not page.pending:
                break
            sequence = page.last + 1
        return found

    def close(self) -> None:
        """Fail whoever still waits."""
        self._closed = True
        for page in self._pages.values():
            page.fail(_down("the connection was closed"))

    async def _ask(self, stream: str, question: dict[str, Any], deadline: float) -> _Page:
        """Ask for a page, again and again until it came whole or the time is up."""
        command = encode(question)
        while True:
            try:
                return await self._ask_once(stream, command, deadline)
            except _NoStream:
                raise
            except Unavailable:
                if self._closed or self._loop.time() + RETRY_S >= deadline:
                    raise
            await asyncio.sleep(RETRY_S)

    async def _ask_once(self, stream: str, question: bytes, deadline: float) -> _Page:
        if not self._listening:
            self._listening = True
            self._client.listen(self._inbox + "*", self._receive)
        token = b"%x" % next(self._numbers)
        command = pub(f"{API}.DIRECT.GET.{stream}", question, self._inbox + token.decode())
        self._client.send_now(command)
        page = self._pages[token] = _Page(command, self._loop.create_future())
        try:
            await self._wait(page, min(SILENCE_S, deadline - self._loop.time()))
            if page.found:
                await self._wait(page, deadline - self._loop.time())
        finally:
            del self._pages[token]
        if not page.done.done():
            raise _down("no answer in time")
        if page.error is not None:
            raise page.error
        return page

    async def _wait(self, page: _Page, timeout_s: float) -> None:
        if not page.done.done():
            await asyncio.wait((page.done,), timeout=max(timeout_s, 0))

    def _receive(self, subject: bytes, _reply: bytes, block: bytes | None, payload: bytes) -> None:
        page = self._pages.get(subject[self._cut :])
        if page is None:
            return
        try:
            page.take(block, payload)
        except ValueError:
            page.fail(_down("its answer was not understood"))

    def _denied(self, subject: bytes) -> None:
        for page in self._pages.values():
            if subject_of(page.question) == subject:
                page.fail(Bug(f"NATS does not let this service publish to {subject.decode()}"))

    def _lost(self) -> None:
        for page in self._pages.values():
            page.fail(_down("the connection was lost"))
