"""Questions that wait for an answer on one shared inbox: requests, and publications that a stream acknowledges.

A call is one entry in a table; one timer serves all deadlines and repeats. An entry leaves with its answer, its
deadline or its caller, so nothing is left behind by an answer that never comes. It knows no subjects but its own inbox.
"""

import asyncio
import itertools
import secrets
from typing import Any, Final

import msgspec
from msgspec import Struct

from kitemesh_contracts import headers
from kitemesh_contracts.errors import Bug, Busy, ErrorCode, KitemeshError, Unavailable
from kitemesh_contracts.permissions import ANSWERS
from kitemesh_runtime.bus import Receipt
from kitemesh_runtime.client_nats import GuardedClient
from kitemesh_runtime.jetstream_nats import ApiError
from kitemesh_runtime.wire_nats import hpub, pub, status_of, subject_of

SWEEP_S: Final = 0.05
REPEAT_S: Final = 1.0
"""How long an acknowledgement may take before the message is sent again under its id."""
BACKOFF_S: Final = 0.05
BACKOFF_MAX_S: Final = 0.5
_NEVER: Final = float("inf")
_SERVER: Final = "$JS."

_NO_RESPONDERS: Final = 503
_STORE_FAILED: Final = 10077
_STREAM_BYTES: Final = 10122
_ID_IN_PROCESS: Final = 10158
QUEUE_FULL_RETRY_S: Final = 1.0


class PubAck(Struct, frozen=True, kw_only=True):
    """A stream's answer to a publication."""

    seq: int = 0
    duplicate: bool = False
    error: ApiError | None = None


decode_ack: Final = msgspec.json.Decoder(PubAck).decode


class _Call:
    """A request under way: asked once, failed by the first trouble."""

    __slots__ = ("command", "deadline", "due", "future", "why")

    def __init__(self, command: bytes, deadline: float, future: asyncio.Future[Any]) -> None:
        self.command = command
        self.deadline = deadline
        self.due = _NEVER
        self.future = future
        self.why = "no answer in time"

    def answer(self, block: bytes | None, payload: bytes, now: float) -> None:  # noqa: ARG002  a publication needs it
        """Take the answer."""
        if status_of(block) == _NO_RESPONDERS:
            self.fail(_down("nobody listens there"))
        elif not self.future.done():
            self.future.set_result(payload)

    def lost(self) -> None:
        """Take note that the connection is gone, and the answer with it."""
        self.fail(_down("the connection was lost"))

    def fail(self, error: KitemeshError) -> None:
        """End with an error, unless it ended already."""
        if not self.future.done():
            self.future.set_exception(error)


class _Publication(_Call):
    """A publication under way: repeated under its id until a stream acknowledged it."""

    __slots__ = ("backoff_s",)

    def __init__(self, command: bytes, deadline: float, future: asyncio.Future[Any]) -> None:
        super().__init__(command, deadline, future)
        self.backoff_s = BACKOFF_S

    def answer(self, block: bytes | None, payload: bytes, now: float) -> None:
        """Take an acknowledgement, or put the next try off to when it may succeed."""
        if status_of(block) == _NO_RESPONDERS:
            self._again(now, "no stream takes the message")
            return
        try:
            ack = decode_ack(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._again(now, "the stream's answer was not understood")
            return
        error = ack.error
        if error is None:
            if not self.future.done():
                self.future.set_result(Receipt(ack.seq, ack.duplicate))
        elif error.err_code == _STREAM_BYTES or (
            error.err_code == _STORE_FAILED and error.description.startswith("maximum ")
        ):
            self.fail(Busy(ErrorCode.QUEUE_FULL, "The queue is full.", retry_after_s=QUEUE_FULL_RETRY_S))
        elif error.code == _NO_RESPONDERS or error.err_code == _ID_IN_PROCESS:
            self._again(now, f"the stream is not ready (error {error.err_code})")
        else:
            self.fail(_down(f"the stream refused the message (error {error.err_code})"))

    def lost(self) -> None:
        """Wait for the next connection."""
        self.why = "the connection was lost"

    def _again(self, now: float, why: str) -> None:
        self.why = why
        self.due = now + self.backoff_s
        self.backoff_s = min(2 * self.backoff_s, BACKOFF_MAX_S)


def _down(why: str) -> Unavailable:
    return Unavailable(ErrorCode.BUS_DOWN, f"The message bus did not answer: {why}.")


class Calls:
    """The table of calls of one connection."""

    def __init__(self, client: GuardedClient, inbox_prefix: str) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._inbox = f"{inbox_prefix}.{secrets.token_hex(8)}."
        self._answers = f"{inbox_prefix}.{ANSWERS}.{secrets.token_hex(8)}."
        self._answers_heard = False
        self._numbers = itertools.count(1)
        self._calls: dict[bytes, _Call] = {}
        self._sweeping = False
        client.listen(self._inbox + "*", self._receive)
        client.on_lost(self._lost)
        client.on_regained(self._regained)
        client.on_denied(self._denied)

    @property
    def under_way(self) -> int:
        """How many calls wait for an answer."""
        return len(self._calls)

    async def publish(self, subject: str, payload: bytes, *, msg_id: str, timeout_s: float, more: str = "") -> Receipt:
        """Store a message, repeating it under its id; `more` are further header lines.

        Raises:
            Busy: The stream is full.
            Unavailable: No acknowledgement in time, or an error that time does not heal.
            ContractViolation: It is larger than the server takes, or a character may not travel.

        """
        token = b"%x" % next(self._numbers)
        reply = self._inbox + token.decode()
        command = hpub(subject, payload, reply=reply, header=headers.MSG_ID, value=msg_id, more=more)
        self._client.check_size(command)
        now = self._loop.time()
        call = _Publication(command, now + timeout_s, self._loop.create_future())
        call.due = now + (REPEAT_S if self._client.offer(command) else BACKOFF_S)
        receipt: Receipt = await self._outcome(token, call)
        return receipt

    async def ask(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Send once and return the first answer.

        Raises:
            Unavailable: Disconnected, nobody listens, or no answer in time.
            ContractViolation: It is larger than the server takes, or a character may not travel.

        """
        token = b"%x" % next(self._numbers)
        command = pub(subject, payload, self._inbox_for(subject) + token.decode())
        self._client.send_now(command)
        call = _Call(command, self._loop.time() + timeout_s, self._loop.create_future())
        answer: bytes = await self._outcome(token, call)
        return answer

    async def echo(self, *, timeout_s: float) -> None:
        """Return once a message to oneself came back: the server processed everything sent before it.

        Raises:
            Unavailable: Disconnected, or it did not come back in time.

        """
        token = b"%x" % next(self._numbers)
        command = pub(self._inbox + token.decode(), b"")
        self._client.send_now(command)
        await self._outcome(token, _Call(command, self._loop.time() + timeout_s, self._loop.create_future()))

    def close(self) -> None:
        """Fail whatever still waits."""
        for call in self._calls.values():
            call.fail(_down("the connection was closed"))

    def _inbox_for(self, subject: str) -> str:
        """Choose where the answer comes: other services may write to one inbox only, and JetStream never does."""
        if subject.startswith(_SERVER):
            return self._inbox
        if not self._answers_heard:
            self._answers_heard = True
            self._client.listen(self._answers + "*", self._receive)
        return self._answers

    async def _outcome(self, token: bytes, call: _Call) -> Any:
        self._calls[token] = call
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_S, self._sweep)
        try:
            return await call.future
        finally:
            del self._calls[token]

    def _receive(self, subject: bytes, _reply: bytes, block: bytes | None, payload: bytes) -> None:
        call = self._calls.get(subject[subject.rindex(b".") + 1 :])
        if call is not None:
            call.answer(block, payload, self._loop.time())

    def _sweep(self) -> None:
        if not self._calls:
            self._sweeping = False
            return
        now = self._loop.time()
        for call in self._calls.values():
            if now >= call.deadline:
                call.fail(_down(call.why))
            elif now >= call.due:
                call.due = now + (REPEAT_S if self._client.offer(call.command) else BACKOFF_S)
        self._loop.call_later(SWEEP_S, self._sweep)

    def _denied(self, subject: bytes) -> None:
        for call in self._calls.values():
            if subject_of(call.command) == subject:
                call.fail(Bug(f"NATS does not let this service publish to {subject.decode()}"))

    def _lost(self) -> None:
        for call in self._calls.values():
            call.lost()

    def _regained(self) -> None:
        for call in self._calls.values():
            if call.due != _NEVER and self._client.offer(call.command):
                call.due = self._loop.time() + REPEAT_S
