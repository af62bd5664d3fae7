"""Who did what, when: appended to, and never changed.

What holds for every store is said in `stores`.
"""

from typing import Protocol

from msgspec import Struct


class AuditRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who did what, when, from where. Never changed.

    Attributes:
        id: Names the deed, so that noting it twice is noting it once.
        subject: What it was done to: the id of a hold or a key, or a tenant's name.
        what: Such as `approval.decided` or `key.created`.
        calls: Execution ids that it is about, each with `approved`, `denied` or `edited`.
        values: What was set: JSON text of an object without secrets, or empty.
        at_s: Epoch seconds of the database's clock; where it is 0, when it was noted.

    """

    id: str
    tenant: str
    subject: str
    what: str
    by: str = ""
    origin: str = ""
    calls: dict[str, str] = {}
    values: str = ""
    reason: str = ""
    at_s: float = 0.0


class Audit(Protocol):
    """Append-only."""

    async def append(self, tenant: str, row: AuditRow) -> None:
        """Note a deed; grouped. Twice is the same as once.

        Raises:
            Conflict: The id is another tenant's (`store.duplicate`).

        """

    async def about(self, tenant: str, subject: str) -> list[AuditRow]:
        """Return what was done to a subject, oldest first."""

    async def page(self, tenant: str, *, subject: str | None, before: str | None, limit: int) -> list[AuditRow]:
        """Return what was done, newest first; `before` is the last one's id, and nothing is behind an unknown one."""
