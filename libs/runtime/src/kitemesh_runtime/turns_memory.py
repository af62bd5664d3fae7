"""The memory twin of `Turns`, and the words that a turn says."""

import re
import unicodedata
from typing import Final, NamedTuple

from kitemesh_contracts.content import FilePart, Message, UserMessage, files_of, user_text
from kitemesh_contracts.errors import Bug, Conflict, ErrorCode
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.rows import rows_of
from kitemesh_runtime.turns import Erased, TurnRecord
from kitemesh_runtime.usage import Note, bill_of

_WORD: Final = re.compile(r"\w+")


class Tombstone(NamedTuple):
    """Stands where a turn was, and keeps it from being stored again.

    Attributes:
        is_billed: What it cost was noted.

    """

    tenant: str
    is_billed: bool = True


Kept = dict[str, LiveTurn | TurnRecord | Tombstone]
"""Turns by id."""


class MemoryTurns:
    """The `Turns` port in memory.

    Args:
        kept: Where they are, by id; shared with `MemoryLiveTurns`.
        note: Takes note of what each of them cost.

    """

    def __init__(self, kept: Kept, note: Note) -> None:
        self._kept = kept
        self._note = note

    async def put(self, tenant: str, record: TurnRecord) -> None:
        """Store an ended turn. The first one stored under an id stays; a live one is not ended here."""
        if record.tenant != tenant:
            raise Bug("a turn was to be stored for another tenant than its own")
        is_new = record.id not in self._kept
        found = self._kept.setdefault(record.id, record)
        if found.tenant != tenant:
            raise Conflict(ErrorCode.DUPLICATE, "it exists already")
        if isinstance(found, LiveTurn):
            raise Conflict(ErrorCode.STALE, "it has not ended")
        if is_new or (isinstance(found, Tombstone) and not found.is_billed):
            self._note(bill_of(record))
        if isinstance(found, Tombstone):
            self._kept[record.id] = Tombstone(tenant)

    async def get(self, tenant: str, turn: str) -> TurnRecord | None:
        """Return the turn, or `None`."""
        record = self._kept.get(turn)
        return record if isinstance(record, TurnRecord) and record.tenant == tenant else None

    async def recent(self, tenant: str, conversation: str, *, limit: int) -> list[TurnRecord]:
        """Return the newest `limit` turns in which a model said or did something, oldest first."""
        answered = [
            record
            for record in self._kept.values()
            if isinstance(record, TurnRecord)
            and (record.tenant, record.conversation) == (tenant, conversation)
            and (record.answer is not None or record.steps)
        ]
        return sorted(answered, key=lambda record: record.ordinal)[-limit:] if limit > 0 else []

    async def erase(
        self, tenant: str, *, conversation: str | None = None, agent: str | None = None, limit: int = 500
    ) -> list[Erased]:
        """Empty turns, live and ended, and return what they leave."""
        if conversation is None and agent is None:
            raise Bug("turns are erased of a conversation or of an agent")
        found = [
            turn
            for turn in self._kept.values()
            if not isinstance(turn, Tombstone)
            and turn.tenant == tenant
            and (conversation is None or turn.conversation == conversation)
            and (agent is None or (turn.agent == agent and turn.row > 0 and isinstance(turn, TurnRecord)))
        ][:limit]
        for turn in found:
            if isinstance(turn, LiveTurn):
                self._note(bill_of(turn))
            self._kept[turn.id] = Tombstone(tenant)
        return [Erased(turn.id, turn.message, _blobs_of(turn), len(rows_of(turn))) for turn in found]

    async def bury(self, tenant: str, turn: str) -> None:
        """Have a turn count as erased that is not stored so far; one that is stored stays."""
        self._kept.setdefault(turn, Tombstone(tenant, is_billed=False))


def words_in(text: str) -> set[str]:
    """Return the words of a text, without case and accents."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return set(_WORD.findall("".join(each for each in plain if not unicodedata.combining(each))))


def words_of(record: TurnRecord) -> set[str]:
    """Return the words that the user said in a turn."""
    return words_in(" ".join(user_text(message) for message in record.input if isinstance(message, UserMessage)))


def _blobs_of(turn: LiveTurn | TurnRecord) -> tuple[str, ...]:
    results = [result.blob for step in turn.steps for result in step.results]
    files = [file.blob for message in turn.input for file in _files(message)]
    return tuple(blob for blob in (*files, *results) if blob is not None)


def _files(message: Message) -> tuple[FilePart, ...]:
    return files_of(message) if isinstance(message, UserMessage) else ()
