from typing import Any

import pytest

from kitemesh_gateway.known_keys import Known, KnownKeys
from kitemesh_gateway.principals import Principal, nobody, principal_of
from kitemesh_runtime.keys import KeyRecord
from kitemesh_runtime.tenancy import Limits, TenantRecord


def key(name: str = "k", **fields: Any) -> KeyRecord:
    return KeyRecord(id=name, tenant="acme", digest=f"d-{name}", scopes=("chat",), created_at_s=1.0, **fields)


def tenant(**fields: Any) -> TenantRecord:
    return TenantRecord(id="acme", **fields)


@pytest.mark.requirement("tenants:models-at-most")
@pytest.mark.parametrize(
    ("own", "tenants", "together"),
    [
        (None, None, None),
        (("a", "b"), None, {"a", "b"}),
        (None, ("a", "b"), {"a", "b"}),
        (("a", "b"), ("b", "c"), {"b"}),
        (("a",), ("c",), set()),
        (("group:ABC", "a"), ("group:abc",), {"group:abc"}),
        (("group:abc", "a"), ("group:ABC",), {"group:abc"}),
        # Another model, and another agent.
        (("M", "agent:A"), ("m", "agent:a"), set()),
    ],
)
def test_a_key_may_name_what_both_it_and_its_tenant_may(
    own: tuple[str, ...] | None, tenants: tuple[str, ...] | None, together: set[str] | None
) -> None:
    assert principal_of(key(models=own), tenant(models=tenants)).models == together


@pytest.mark.requirement("tenants:defaults")
@pytest.mark.parametrize(
    ("fields", "said", "agent", "models"),
    [
        ({}, {}, None, None),
        ({}, {"default_agent": "t"}, "t", None),
        ({"default_agent": "k"}, {"default_agent": "t"}, "k", None),
        ({"default_agent": "k", "models": ("m",)}, {}, "k", {"m", "agent:k"}),
        # The tenant's agent widens no key that was bounded.
        ({"models": ("m",)}, {"default_agent": "t"}, None, {"m"}),
        ({"models": ("m", "agent:t")}, {"default_agent": "t"}, "t", {"m", "agent:t"}),
        # An agent that the tenant may not have answers nobody.
        ({"default_agent": "k"}, {"models": ("m",)}, None, {"m"}),
        ({"default_agent": "k"}, {"models": ("m",), "default_agent": "t"}, "t", {"m", "agent:t"}),
        ({"default_agent": "k"}, {"models": ("m", "agent:k"), "default_agent": "t"}, "k", {"m", "agent:k", "agent:t"}),
    ],
)
def test_the_agent_that_answers_is_the_keys_then_the_tenants_as_far_as_it_may(
    fields: dict[str, Any], said: dict[str, Any], agent: str | None, models: set[str] | None
) -> None:
    principal = principal_of(key(**fields), tenant(**said))
    assert (principal.default_agent, principal.models) == (agent, models)


def test_limits_and_priority_are_the_keys_then_the_tenants() -> None:
    said = tenant(
        limits=Limits(concurrent_turns=9),
        key_limits=Limits(requests_per_minute=6, tokens_per_minute=60),
        priority="batch",
    )
    principal = principal_of(key(limits=Limits(requests_per_minute=7)), said)
    assert principal.limits == Limits(requests_per_minute=7, tokens_per_minute=60)
    assert principal.tenant_limits == Limits(concurrent_turns=9)
    assert principal.priority == "batch"
    assert principal_of(key(priority="interactive"), said).priority == "interactive"
    assert principal_of(key(), tenant()).priority == "interactive"


def test_nobody_is_bounded_like_a_key_of_its_tenant() -> None:
    anonymous = Principal(tenant="acme", key="", scopes=frozenset({"chat"}), default_agent="helper")
    said = tenant(key_limits=Limits(requests_per_minute=6), models=("m", "agent:helper"))
    told = nobody(anonymous, said)
    assert (told.key, told.scopes, told.limits) == ("", anonymous.scopes, Limits(requests_per_minute=6))
    assert (told.default_agent, told.models) == ("helper", {"m", "agent:helper"})


def known(name: str) -> Known:
    record = key(name)
    return Known(record, principal_of(record, tenant()), 1, 0.0)


def test_known_keys_are_bounded_and_each_is_forgotten_by_its_id() -> None:
    keys = KnownKeys(3)
    for name in "abcd":
        keys.put(f"d-{name}", known(name))
    assert (len(keys), keys.get("d-a")) == (3, None)
    keys.drop("c")
    keys.drop("c")
    keys.drop("a")
    assert (len(keys), keys.get("d-c")) == (2, None)
    keys.put("d-b", known("b"))
    keys.put("d-e", known("e"))
    assert len(keys) == 3
    assert all(keys.get(f"d-{name}") for name in "bde")
    assert len(keys._digests) == 3
