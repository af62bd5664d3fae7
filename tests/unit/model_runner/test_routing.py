from collections.abc import Callable
from typing import Any

import pytest

from kitemesh_contracts.errors import ErrorCode, ProviderFailed
from kitemesh_model_runner.breaker import IN_A_ROW, OPEN_S
from kitemesh_model_runner.provider import Provider
from kitemesh_model_runner.provider_scripted import ScriptedModel
from kitemesh_model_runner.routing import Routing
from kitemesh_runtime import catalog


class Handle:
    """A catalog that the test changes."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[catalog.Catalog], None]] = []
        self.current = catalog_of(a="one", b="two")

    def on_change(self, listener: Callable[[catalog.Catalog], None]) -> None:
        self.listeners.append(listener)

    def change(self, current: catalog.Catalog) -> None:
        self.current = current
        for listener in self.listeners:
            listener(current)


def catalog_of(**models: str) -> catalog.Catalog:
    providers = {name: {"kind": "scripted"} for name in models.values()}
    return catalog.Catalog.model_validate(
        {
            "providers": providers,
            "models": {
                name: {"provider": provider, "upstream": f"{name}-v2" if name == "a" else None}
                for name, provider in models.items()
            },
        }
    )


@pytest.fixture
def built() -> list[str]:
    return []


@pytest.fixture
def handle() -> Handle:
    return Handle()


@pytest.fixture
def routing(handle: Handle, built: list[str]) -> Routing:
    def build(name: str, config: catalog.Provider) -> Provider:
        assert isinstance(config, catalog.ScriptedProvider)
        built.append(name)
        return ScriptedModel(config)

    return Routing(handle, build)  # type: ignore[arg-type]  # only these two are used


def test_models_are_tried_in_their_order_and_unknown_ones_are_left_out(routing: Routing) -> None:
    targets = routing.targets(("b", "gone", "a"))
    assert [(target.model, target.upstream) for target in targets] == [("b", "b"), ("a", "a-v2")]
    assert targets[0].provider is not targets[1].provider


def test_one_adapter_serves_call_after_call(routing: Routing, built: list[str]) -> None:
    assert routing.targets(("a",))[0].provider is routing.targets(("a",))[0].provider
    assert built == ["one", "two"]


@pytest.mark.requirement("catalog:reload")
def test_a_new_catalog_serves_at_once(routing: Routing, handle: Handle) -> None:
    handle.change(catalog_of(c="three"))
    assert routing.targets(("a",)) == []
    assert [target.model for target in routing.targets(("c",))] == ["c"]


@pytest.mark.parametrize(
    ("option", "continues"), [({}, True), ({"continues": False}, False), ({"continues": True}, True)]
)
def test_a_scripted_model_continues_unless_the_catalog_says_otherwise(
    routing: Routing, handle: Handle, option: dict[str, bool], *, continues: bool
) -> None:
    models = {"a": {"provider": "p", **option}}
    handle.change(catalog.Catalog.model_validate({"providers": {"p": {"kind": "scripted"}}, "models": models}))
    (target,) = routing.targets(("a",))
    assert target.continues is continues


SCRIPTED = catalog.ScriptedProvider(kind="scripted")
OPENAI = {"kind": "openai", "base_url": "http://localhost:1/v1"}
FAILED = ProviderFailed(ErrorCode.UPSTREAM_FAILED, "words")
LIMITED = ProviderFailed(ErrorCode.UPSTREAM_LIMITED, "words", retry_after_s=60.0)


def remote(**changes: Any) -> catalog.Catalog:
    """A catalog of two providers, one of them with three names for two models."""
    models = {
        "a": {"provider": "p"},
        "same": {"provider": "p", "upstream": "a"},
        "b": {"provider": "p", "context_tokens": 9, "can": ["tools"]},
        "c": {"provider": "q"},
    }
    providers = {"p": OPENAI, "q": {"kind": "scripted"}}
    return catalog.Catalog.model_validate({"providers": providers, "models": models, **changes})


def shut(routing: Routing, model: str, failed: ProviderFailed = FAILED) -> None:
    circuit = routing.targets((model,))[0].circuit
    for _ in range(IN_A_ROW):
        ticket = circuit.enter(0.0)
        if ticket is not None:
            circuit.leave(ticket, 0.0, failed)


@pytest.fixture
def remote_routing(handle: Handle) -> Routing:
    handle.current = remote()
    return Routing(handle, lambda *_: ScriptedModel(SCRIPTED), chance=lambda: 0.0)  # type: ignore[arg-type]  # as above


def test_a_target_says_what_the_catalog_says_of_its_model(remote_routing: Routing) -> None:
    (target,) = remote_routing.targets(("b",))
    assert (target.can, target.context_tokens, target.continues) == (("tools",), 9, False)
    assert (target.circuit.provider, target.circuit.model) == ("p", "b")


@pytest.mark.requirement("routing:health")
def test_models_that_are_not_well_are_named_and_their_provider_is_as_ill_as_the_worst(remote_routing: Routing) -> None:
    assert remote_routing.health(0.0) == {}
    assert remote_routing.states(0.0) == {"p": 0, "q": 0}
    shut(remote_routing, "a")
    shut(remote_routing, "c")
    shut(remote_routing, "b", LIMITED)
    assert remote_routing.health(0.0) == {"a": "down", "same": "down", "b": "degraded"}
    assert remote_routing.states(0.0) == {"p": 2, "q": 0}
    assert remote_routing.health(OPEN_S) == {"a": "degraded", "same": "degraded", "b": "degraded"}
    assert remote_routing.states(OPEN_S) == {"p": 1, "q": 0}
    assert remote_routing.health(60.0) == {"a": "degraded", "same": "degraded"}


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({}, True),
        ({"models": {"a": {"provider": "p", "context_tokens": 7}}}, True),
        ({"models": {"z": {"provider": "p", "upstream": "a"}}}, True),
        ({"providers": {"p": {**OPENAI, "base_url": "http://localhost:2/v1"}, "q": {"kind": "scripted"}}}, False),
        ({"providers": {"p": {"kind": "scripted"}, "q": {"kind": "scripted"}}}, False),
        ({"models": {"a": {"provider": "q"}}}, False),
    ],
    ids=["nothing", "another bound", "another name", "another address", "another kind", "another provider"],
)
def test_a_new_catalog_keeps_what_is_known_of_the_upstreams_that_stay(
    remote_routing: Routing, handle: Handle, changes: dict[str, Any], *, known: bool
) -> None:
    shut(remote_routing, "a")
    handle.change(remote(**changes))
    assert ("down" in remote_routing.health(0.0).values()) is known


def test_an_upstream_that_was_gone_is_not_known_any_more(remote_routing: Routing, handle: Handle) -> None:
    shut(remote_routing, "a")
    handle.change(remote(models={"c": {"provider": "q"}}, providers={"q": {"kind": "scripted"}}))
    handle.change(remote())
    assert remote_routing.health(0.0) == {}
