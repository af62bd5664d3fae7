"""The memory twin of `Turns`."""

from kitemesh_contracts.errors import Bug, Conflict, ErrorCode
from kitemesh_runtime.execution_stores import LiveTurn
from kitemesh_runtime.stores import TurnRecord


class MemoryTurns:
    """The `Turns` port in memory.

    Args:
        kept: Where they are, by id; shared with `MemoryLiveTurns`.

    """

    def __init__(self, kept: dict[str, LiveTurn | TurnRecord]) -> None:
        self._kept = kept

    async def put(self, tenant: str, record: TurnRecord) -> None:
        """Store an ended turn. The first one stored under an id stays; a live one is not ended here."""
        if record.tenant != tenant:
            raise Bug("a turn was to be stored for another tenant than its own")
        found = self._kept.setdefault(record.id, record)
        if found.tenant != tenant:
            raise Conflict(ErrorCode.DUPLICATE, "it exists already")
        if isinstance(found, LiveTurn):
            raise Conflict(ErrorCode.STALE, "it has not ended")

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
