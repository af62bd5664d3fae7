"""On whose behalf a request runs: what a key and its tenant say, put together. Pure."""

from collections.abc import Collection, Iterable
from functools import cache

from msgspec import Struct

from kitemesh_contracts.commands import Priority
from kitemesh_contracts.errors import ErrorCode, KitemeshError
from kitemesh_contracts.scopes import Scope
from kitemesh_runtime.keys import KeyRecord
from kitemesh_runtime.tenancy import Limits, TenantRecord, merge_limits


def may_name(models: Collection[str] | None, model: str) -> bool:
    """Tell whether who may name these models, `None` being all, may name that one.

    Groups are found in whatever case their ids are written. Whatever else differs in it is another model or agent.
    """
    return models is None or model in models or (model.startswith("group:") and model.lower() in models)


class Principal(Struct, frozen=True, kw_only=True):
    """On whose behalf a request runs.

    Attributes:
        key: The key's id; empty for the anonymous principal.
        default_agent: Answers where a dialect's request names none.
        models: What it may name as `model`; `None` allows all.
        limits: Of the key.
        tenant_limits: Of the whole tenant.
        priority: Of its turns.

    """

    tenant: str
    key: str
    scopes: frozenset[str]
    default_agent: str | None = None
    models: frozenset[str] | None = None
    limits: Limits = Limits()
    tenant_limits: Limits = Limits()
    priority: Priority = "interactive"

    def allows(self, model: str) -> bool:
        """Tell whether it may name that model."""
        return may_name(self.models, model)

    def require(self, scope: Scope) -> None:
        """Refuse what the key was not given.

        Raises:
            KitemeshError: It lacks the scope (`permission.denied`).

        """
        if scope not in self.scopes:
            raise KitemeshError(ErrorCode.PERMISSION_DENIED, f"This key does not have the scope {scope}")


def principal_of(record: KeyRecord, tenant: TenantRecord) -> Principal:
    """Return who asks with a key.

    Args:
        record: The key.
        tenant: All that holds for its tenant.

    """
    allowed = nameable(tenant.models, tenant.default_agent)
    agent = record.default_agent
    if agent is not None and not may_name(allowed, f"agent:{agent}"):
        agent = None
    # A key's own agent answers, so that its turns are to be seen. The tenant's is not given to a key that may not.
    models = nameable(record.models, agent)
    if agent is None and tenant.default_agent is not None and may_name(models, f"agent:{tenant.default_agent}"):
        agent = tenant.default_agent
    return Principal(
        tenant=record.tenant,
        key=record.id,
        scopes=_scopes(record.scopes),
        default_agent=agent,
        models=_both(models, allowed),
        limits=merge_limits(record.limits, tenant.key_limits),
        tenant_limits=tenant.limits,
        priority=record.priority or tenant.priority or "interactive",
    )


def nobody(anonymous: Principal, tenant: TenantRecord) -> Principal:
    """Return who asks without a credential."""
    record = KeyRecord(
        id=anonymous.key,
        tenant=anonymous.tenant,
        digest="",
        scopes=tuple(sorted(anonymous.scopes)),
        created_at_s=0.0,
        default_agent=anonymous.default_agent,
        models=None if anonymous.models is None else tuple(anonymous.models),
        limits=anonymous.limits,
    )
    return principal_of(record, tenant)


@cache
def _scopes(names: tuple[str, ...]) -> frozenset[str]:
    # One set for all keys that have the same: there are few, and a set is larger than all else that is kept of a key.
    return frozenset(names)


def nameable(models: Iterable[str] | None, agent: str | None) -> frozenset[str] | None:
    """Return what may be named: models, and the default agent besides; `None` is everything."""
    if models is None:
        return None
    own = (model.lower() if model.startswith("group:") else model for model in models)
    return frozenset(own if agent is None else (*own, f"agent:{agent}"))


def _both(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return other if one is None else one
    return frozenset(model for model in one if may_name(other, model))
