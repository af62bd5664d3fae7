"""Dead letters in `KM_DEAD`, which also keeps the server's advisories: only the mover's references are shown.

The server reads forwards only, so a page, which is newest first, is read window by window from the end.
"""

from typing import Final

import msgspec
import structlog
from msgspec import Struct

from kitemesh_contracts import subjects
from kitemesh_contracts.codec import decode
from kitemesh_contracts.errors import ContractViolation
from kitemesh_contracts.ids import is_id
from kitemesh_contracts.topology import DEAD
from kitemesh_runtime.bus import Bus
from kitemesh_runtime.dead_letters import Letter
from kitemesh_runtime.dead_nats import DeadLetter
from kitemesh_runtime.jetstream_nats import NOT_FOUND, Refused, ask
from kitemesh_runtime.queue_levels_nats import dead_letters

WINDOW: Final = 64
WINDOW_MAX: Final = 4096

log: Final = structlog.get_logger()


class _State(Struct, frozen=True, kw_only=True):
    first_seq: int = 0
    last_seq: int = 0


class _Info(Struct, frozen=True, kw_only=True):
    state: _State


class _Message(Struct, frozen=True, kw_only=True):
    subject: str
    seq: int
    data: bytes = b""


class _Got(Struct, frozen=True, kw_only=True):
    message: _Message


class _Deleted(Struct, frozen=True, kw_only=True):
    success: bool = False


_INFO: Final = msgspec.json.Decoder(_Info)
_GOT: Final = msgspec.json.Decoder(_Got)
_DELETED: Final = msgspec.json.Decoder(_Deleted)
_LETTER: Final = msgspec.json.Decoder(DeadLetter)


class NatsDeadLetters:
    """The `DeadLetters` port."""

    def __init__(self, bus: Bus) -> None:
        self._bus: Final = bus

    async def count(self) -> int:
        """Return how many there are."""
        return await dead_letters(self._bus)

    async def page(self, *, stream: str | None, before: int | None, limit: int) -> list[Letter]:
        """Return letters, newest first."""
        state = (await ask(self._bus, f"STREAM.INFO.{DEAD}", {}, _INFO)).state
        last = state.last_seq if before is None else min(state.last_seq, before - 1)
        matching = subjects.DEAD_ALL if stream is None else subjects.dead_of(stream)
        found: list[Letter] = []
        window = WINDOW
        while last >= max(1, state.first_seq) and len(found) < limit:
            first = max(1, state.first_seq, last - window + 1)
            letters = await self._between(matching, first, last)
            found += reversed(letters)
            last, window = first - 1, min(2 * window, WINDOW_MAX)
        return found[:limit]

    async def get(self, number: int) -> Letter | None:
        """Return a letter; `None` when there is none of that number."""
        message = await self._read({"seq": number})
        return None if message is None else _letter(message)

    async def remove(self, number: int) -> None:
        """Remove a letter; again is the same."""
        try:
            await ask(self._bus, f"STREAM.MSG.DELETE.{DEAD}", {"seq": number, "no_erase": True}, _DELETED)
        except Refused:
            # The server has more than one word for a message that is not there.
            if await self.get(number) is not None:
                raise

    async def _between(self, matching: str, first: int, last: int) -> list[Letter]:
        """Return the letters from one number to another, oldest first."""
        letters: list[Letter] = []
        while first <= last:
            message = await self._read({"seq": first, "next_by_subj": matching})
            if message is None or message.seq > last:
                break
            letter = _letter(message)
            if letter is not None:
                letters.append(letter)
            first = message.seq + 1
        return letters

    async def _read(self, question: dict[str, int | str]) -> _Message | None:
        try:
            return (await ask(self._bus, f"STREAM.MSG.GET.{DEAD}", question, _GOT)).message
        except Refused as exc:
            if exc.error.code == NOT_FOUND:
                return None
            raise


def _letter(message: _Message) -> Letter | None:
    """Read a letter; `None` for anything else that the stream keeps."""
    if not message.subject.startswith(f"{subjects.ROOT}.dead."):
        return None
    try:
        dead = decode(_LETTER, message.data)
    except ContractViolation as exc:
        log.warning("letter.unread", number=message.seq, reason=exc.message)
        return None
    turn = subjects.last_token(dead.subject)
    return Letter(
        number=message.seq,
        stream=dead.stream,
        subject=dead.subject,
        turn=turn if is_id(turn) else "",
        deliveries=dead.deliveries,
        reason=dead.reason,
        at=dead.at,
    )
