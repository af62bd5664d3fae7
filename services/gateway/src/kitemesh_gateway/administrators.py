"""Who may look after what: the asking principal, the tenant it means, and the body it sent.

No key can give what it does not have; what belongs to a tenant that it may not look after is unknown to it.
"""

from collections.abc import Collection, Iterable
from typing import Final

from kitemesh_contracts.errors import ErrorCode, KitemeshError
from kitemesh_contracts.scopes import Scope
from kitemesh_gateway import strict_json
from kitemesh_gateway.auth import Authenticator, Principal, may_name
from kitemesh_gateway.body import check_headers, read_body
from kitemesh_gateway.dialects.base import Mistake, Mistakes
from kitemesh_gateway.exchange import Exchange
from kitemesh_runtime.administration import Actor, tenant_of
from kitemesh_runtime.tenancy import DEFAULT_TENANT

TENANT: Final = "tenant"


class Administrators:
    """Identifies who looks after keys and tenants.

    Args:
        authenticator: Says who asks.
        max_body_bytes: Largest body.
        body_timeout_s: How long a body may take.

    """

    def __init__(self, authenticator: Authenticator, *, max_body_bytes: int, body_timeout_s: float) -> None:
        self._authenticator: Final = authenticator
        self._max_body_bytes: Final = max_body_bytes
        self._body_timeout_s: Final = body_timeout_s

    async def identify(self, exchange: Exchange, scope: Scope = Scope.ADMIN) -> Principal:
        """Say who asks.

        Raises:
            KitemeshError: It is nobody whom we know, or lacks the scope.

        """
        authorization = exchange.request.headers.getall("Authorization", ())
        exchange.principal = principal = await self._authenticator.identify(authorization, exchange.peer)
        if scope is Scope.ADMIN and Scope.OPERATOR in principal.scopes:
            return principal
        principal.require(scope)
        return principal

    async def read(self, exchange: Exchange, scope: Scope = Scope.ADMIN) -> tuple[Principal, object]:
        """Say who asks, and read what it sent; nothing is an object without fields.

        Raises:
            KitemeshError: It is refused.

        """
        if not exchange.request.can_read_body:
            return await self.identify(exchange, scope), {}
        check_headers(exchange.request, self._max_body_bytes)
        principal = await self.identify(exchange, scope)
        body = await read_body(exchange.request, self._max_body_bytes, self._body_timeout_s)
        return principal, strict_json.decode(body) if body else {}


def actor_of(exchange: Exchange, principal: Principal) -> Actor:
    """Return who makes a change."""
    return Actor(by=principal.key, origin=exchange.request.remote or "")


def meant_tenant(principal: Principal, named: str | None, *, is_default_meant: bool = False) -> str:
    """Return whose things are meant.

    Args:
        principal: Who asks.
        named: The tenant that the query names, if it does.
        is_default_meant: Whether `_default` is one.

    Raises:
        KitemeshError: Only an operator may name another one than its own.
        Mistakes: `_default` is no tenant here.

    """
    if named is None or named == principal.tenant:
        return principal.tenant
    principal.require(Scope.OPERATOR)
    tenant = tenant_of(named)
    if tenant == DEFAULT_TENANT and not is_default_meant:
        raise Mistakes([Mistake(TENANT, "must be a tenant: _default stands for what is said of all")])
    return tenant


def check_gift(
    principal: Principal,
    own: Collection[str] | None,
    *,
    scopes: Iterable[str],
    models: Iterable[str] | None,
    agent: str | None,
) -> None:
    """Refuse to give what the giver does not have.

    Args:
        principal: Who gives.
        own: What its key alone lets it name; what its tenant forbids is forbidden to any key of that tenant anyhow.
        scopes: What a key is to be allowed.
        models: What it is to name; `None` is everything.
        agent: Which agent is to answer it.

    Raises:
        KitemeshError: It does not have one of them (`permission.denied`).

    """
    missing = [scope for scope in scopes if scope not in principal.scopes]
    if missing:
        raise _ungiven(f"the scope {missing[0]}")
    if models is None:
        if own is not None:
            raise _ungiven("all models: name those that it is to use")
    else:
        missing = [model for model in models if not may_name(own, model)]
        if missing:
            raise _ungiven(f"the model {missing[0]!r}")
    if agent is not None and not may_name(own, f"agent:{agent}"):
        raise _ungiven(f"the agent {agent!r}")


def _ungiven(what: str) -> KitemeshError:
    return KitemeshError(ErrorCode.PERMISSION_DENIED, f"A key can be given only what the asking key has, not {what}")
