from collections.abc import Callable

import pytest

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
