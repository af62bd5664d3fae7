"""What the routes of tenants and of the audit answer, and how it is rendered. Times are ISO 8601 in UTC. Pure."""

from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from kitemesh_contracts.commands import Priority
from kitemesh_gateway.dialects.keys_answers import LimitsOut, limits_out
from kitemesh_gateway.instants import iso
from kitemesh_runtime.administration import token_of
from kitemesh_runtime.audit import AuditRow
from kitemesh_runtime.tenancy import TenantRecord


class TenantTerms(Struct, frozen=True, kw_only=True):
    """What holds for a tenant.

    Attributes:
        limits: Of the whole tenant.
        key_limits: Of each of its keys that has none of its own.
        default_agent: Answers where neither request nor key names one.
        models: What its keys may use at most; `null` is everything.
        priority: Of its turns, where neither request nor key says one.
        retention_days: By kind, where it is not the default.

    """

    limits: LimitsOut
    key_limits: LimitsOut
    default_agent: str | None
    models: tuple[str, ...] | None
    priority: Priority | None
    retention_days: dict[str, int]


class TenantOut(TenantTerms, frozen=True, kw_only=True):
    """What is said of a tenant.

    Attributes:
        id: Its name; `_default` for what holds for all.
        updated_at: When it was said; `null` where nothing was.
        effective: What holds, with what is said of `_default` where nothing is said here; not in lists.

    """

    id: str
    updated_at: str | None
    effective: TenantTerms | None = None


class TenantPage(Struct, frozen=True, kw_only=True):
    """Tenants of which something is said, by name.

    Attributes:
        next_cursor: Continues the list; `null` at its end.

    """

    data: tuple[TenantOut, ...]
    next_cursor: str | None


class TenantRemoved(Struct, frozen=True, kw_only=True):
    """Nothing is said of a tenant any more."""

    id: str
    deleted: bool


class DeedOut(Struct, frozen=True, kw_only=True):
    """Something that was done.

    Attributes:
        subject: What it was done to: the id of an approval or a key, or a tenant's name.
        what: Such as `key.created`, `tenant.changed` or `approval.decided`.
        by: The id of the key that did it, or `cli`; empty for who needs no key, and for what happened by itself.
        from_: The address that it came from.
        values: What was set.
        calls: Executions of tools that it is about, each with what became of it.

    """

    id: str
    at: str
    subject: str
    what: str
    by: str
    from_: str = msgspec.field(name="from")
    reason: str
    values: Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
    calls: dict[str, str]


class DeedPage(Struct, frozen=True, kw_only=True):
    """What was done, newest first.

    Attributes:
        next_cursor: Continues the list; `null` at its end.

    """

    data: tuple[DeedOut, ...]
    next_cursor: str | None


def tenant_out(record: TenantRecord, effective: TenantRecord | None = None) -> TenantOut:
    """Render what is said of a tenant, and what holds for it."""
    terms = _terms(record)
    return TenantOut(
        id=token_of(record.id),
        updated_at=iso(record.updated_at_s) if record.updated_at_s else None,
        effective=None if effective is None else _terms(effective),
        **msgspec.structs.asdict(terms),
    )


def deed_out(row: AuditRow) -> DeedOut:
    """Render a row of the audit."""
    return DeedOut(
        id=deed_name(row.id),
        at=iso(row.at_s),
        subject=token_of(row.subject),
        what=row.what,
        by=row.by,
        from_=row.origin,
        reason=row.reason,
        values=Raw(row.values.encode() or b"{}"),
        calls=dict(row.calls),
    )


def deed_name(row: str) -> str:
    """Return a row's name as it may stand in a query; the parts of a name are ids of ours, which have no `_`."""
    return row.replace(":", "_")


def row_name(deed: str) -> str:
    """Return the name of the row that a query names."""
    return deed.replace("_", ":")


def _terms(record: TenantRecord) -> TenantTerms:
    return TenantTerms(
        limits=limits_out(record.limits),
        key_limits=limits_out(record.key_limits),
        default_agent=record.default_agent,
        models=record.models,
        priority=record.priority,
        retention_days={str(kind): days for kind, days in record.retention_days.items()},
    )
