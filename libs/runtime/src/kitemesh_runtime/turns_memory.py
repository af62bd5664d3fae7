"""The memory twin of `Turns`."""

from kitemesh_contracts.errors import Bug, Conflict, ErrorCode
from kitemesh_runtime.stores import TurnRecord


class MemoryTurns:
    """The `Turns` port in memory."""

    def __init__(self) -> None:
        self._records: dict[str, TurnRecord] = {}

    async def put(self, tenant: str, record: TurnRecord) -> None:
        """Store an ended turn. The first one stored under an id stays."""
        if record.tenant != tenant:
            raise Bug("a turn was to be stored for another tenant than its own")
        if self._records.setdefault(record.id, record).tenant != tenant:
            raise Conflict(ErrorCode.DUPLICATE, "it exists already")

    async def get(self, tenant: str, turn: str) -> TurnRecord | None:
        """Return the turn, or `None`."""
        record = self._records.get(turn)
        return record if record is not None and record.tenant == tenant else None

    async def recent(self, tenant: str, conversation: str, *, limit: int) -> list[TurnRecord]:
        """Return the newest `limit` turns that have an answer, oldest first."""
        answered = [
            record
            for record in self._records.values()
            if (record.tenant, record.conversation) == (tenant, conversation) and record.answer is not None
        ]
        return sorted(answered, key=lambda record: record.ordinal)[-limit:] if limit > 0 else []
