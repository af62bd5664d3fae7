"""The catalog: every mistake at once, what a request's `model` leads to, and a file that changes while it serves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kitemesh_contracts.commands import Route
from kitemesh_contracts.errors import BadRequest, NotFound
from kitemesh_contracts.topology import Pool
from kitemesh_runtime.catalog import CatalogError, Secret, parse
from kitemesh_runtime.catalog_file import CatalogHandle, read

GROUP = "123e4567-e89b-12d3-a456-426614174000"


def catalog(**changes: Any) -> str:
    """Return a catalog's text, some parts of it changed."""
    parts: dict[str, Any] = {
        "providers": {"p": {"kind": "scripted"}},
        "models": {"a": {"provider": "p"}, "b": {"provider": "p"}, "org/c:7b": {"provider": "p"}},
        "agents": {"helper": {"model": "a"}, "grouped": {"model": f"group:{GROUP}"}},
        "groups": {GROUP: {"models": ["a", "b"], "agent": "helper"}},
    }
    return yaml.safe_dump({**parts, **changes})


@pytest.mark.parametrize(
    ("requested", "route"),
    [
        ("a", Route(requested="a", models=("a",), pool="default")),
        ("org/c:7b", Route(requested="org/c:7b", models=("org/c:7b",), pool="default")),
        ("agent:helper", Route(requested="agent:helper", models=("a",), pool="default", agent="helper")),
        ("agent:grouped", Route(requested="agent:grouped", models=("a", "b"), pool="default", agent="grouped")),
        (f"group:{GROUP}", Route(requested=f"group:{GROUP}", models=("a", "b"), pool="default", agent="helper")),
        (
            f"group:{GROUP.upper()}",
            Route(requested=f"group:{GROUP.upper()}", models=("a", "b"), pool="default", agent="helper"),
        ),
    ],
)
def test_what_a_request_names_leads_to_its_models(requested: str, route: Route) -> None:
    assert parse(catalog()).resolve(requested) == route


@pytest.mark.parametrize("requested", ["", "nobody", "agent:", "agent:nobody", GROUP, f"group:{GROUP[:-1]}1", "helper"])
def test_what_is_not_offered_is_not_found(requested: str) -> None:
    with pytest.raises(NotFound):
        parse(catalog()).resolve(requested)


@pytest.mark.requirement("completions:group-is-a-uuid")
@pytest.mark.parametrize("requested", ["group:", "group:1", f"group:{GROUP} ", f"group:{{{GROUP}}}", f"group: {GROUP}"])
def test_a_group_that_is_no_uuid_is_a_bad_request(requested: str) -> None:
    with pytest.raises(BadRequest):
        parse(catalog()).resolve(requested)


MISTAKES = [
    ({"models": {"a": {"provider": "nobody"}}, "agents": {}, "groups": {}}, "models.a: no provider 'nobody'"),
    ({"models": {"a": {"provider": "p", "pool": "x"}}, "agents": {}, "groups": {}}, "models.a: no model pool 'x'"),
    ({"agents": {"helper": {"model": "x"}}}, "agents.helper: no model 'x'"),
    ({"groups": {GROUP: {"models": ["x"]}}, "agents": {}}, f"groups.{GROUP}: no model 'x'"),
    ({"groups": {GROUP: {"models": ["a"], "agent": "x"}}, "agents": {}}, f"groups.{GROUP}: no agent 'x'"),
    ({"groups": {"main": {"models": ["a"]}}, "agents": {}}, "groups: not lower-case UUIDs: main"),
    ({"roles": {"Main": {"prompt": "x"}}}, "roles: not lower-case UUIDs: Main"),
    ({"roles": {GROUP: {"prompt": "x", "knowledge": ["a", "b", "a"]}}}, f"roles.{GROUP}: knowledge 'a' twice"),
    ({"roles": {GROUP: {"prompt": ""}}}, f"roles.{GROUP}.prompt: must have at least 1 character"),
    ({"roles": {GROUP: {"prompt": "x", "knowledge": []}}}, f"roles.{GROUP}.knowledge: must have at least 1 entry"),
    (
        {"roles": {GROUP: {"prompt": "x", "knowledge": ["a/b"]}}},
        f"roles.{GROUP}.knowledge.0: must be 1 to 64 of A-Z a-z 0-9 _ -",
    ),
    ({"default_model": "x"}, "default_model: no model 'x'"),
    (
        {"surprise": 1},
        (
            "surprise: no such field; known: version, default_model, pools, providers, models, agents, groups, roles, "
            "tools, mcp_servers, policies, webhooks"
        ),
    ),
    ({"version": 2}, "version: must be 1"),
    (
        {"models": {"a": {"provider": "p"}, "agent:b": {"provider": "p"}}, "agents": {}, "groups": {}},
        "models.agent:b: may not begin with group: or agent:",
    ),
    ({"providers": {"p": {"kind": "scriptd"}}}, "providers.p.kind: 'scriptd' is not one of scripted, fixed, openai"),
    ({"providers": {"p": {}}}, "providers.p.kind: must be set: one of scripted, fixed, openai"),
    (
        {"providers": {"p": {"kind": "openai", "base_url": "h/v1"}}},
        "providers.p.base_url: must begin with http:// or https://",
    ),
    (
        {"models": {"a": {"provider": "p", "foo": 1}}, "agents": {}, "groups": {}},
        "models.a.foo: no such field; known: provider, upstream, pool, owned_by, context_tokens, continues, can",
    ),
    (
        {
            "providers": {"p": {"kind": "fixed", "text": "x"}},
            "models": {"a": {"provider": "p", "continues": True}},
            "agents": {},
            "groups": {},
        },
        "models.a: provider 'p' cannot go on with an answer",
    ),
    (
        {"models": {"a": {"provider": "p", "context_tokens": 0}}, "agents": {}, "groups": {}},
        "models.a.context_tokens: must be a whole number above 0",
    ),
    ({"models": {7: {"provider": "p"}}}, "models.7: a name must be text: put it between quotes"),
    ({"agents": {"a b": {"model": "a"}}}, "agents.a b: must be 1 to 64 of A-Z a-z 0-9 _ -"),
    ({"agents": []}, "agents: must be a mapping"),
    (
        {"providers": {"p": {"kind": "openai", "base_url": "http://h/v1", "api_key": {"env": "A", "file": "/b"}}}},
        "providers.p.api_key: needs exactly one of env, file",
    ),
]


@pytest.mark.requirement("catalog:all-mistakes-at-once")
@pytest.mark.parametrize(("changes", "problem"), MISTAKES, ids=[problem for _, problem in MISTAKES])
def test_a_mistake_is_named_with_its_place(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(CatalogError) as caught:
        parse(catalog(**changes))
    assert problem in caught.value.problems


@pytest.mark.requirement("catalog:all-mistakes-at-once")
def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(CatalogError) as caught:
        parse(catalog(agents={"x": {"model": "nobody"}, "y": {"model": "nobody"}}, default_model="nobody"))
    assert len(caught.value.problems) == 4


@pytest.mark.requirement("catalog:all-mistakes-at-once")
def test_references_are_checked_although_other_parts_are_wrong() -> None:
    wrong = catalog(
        providers={"p": {"kind": "nonsense"}},
        groups={"main": {"models": ["x"], "agent": "y"}, GROUP: {"models": 7}},
        agents={"helper": {"model": "z"}},
        extra=1,
    )
    with pytest.raises(CatalogError) as caught:
        parse(wrong)
    assert sorted(problem.partition(": ")[0] for problem in caught.value.problems) == sorted(
        [
            "agents.helper",
            "extra",
            f"groups.{GROUP}.models",
            "groups",
            "groups.main",
            "groups.main",
            "providers.p.kind",
        ]
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "own.yaml is empty"),
        ("a: [\n", "own.yaml:2: not YAML"),
        ("a: \x00", "own.yaml: not YAML: special characters"),
        ("7", "own.yaml: must be a mapping"),
        ("{providers: {}, models: {}, x: 1}", "own.yaml: x: no such field"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_the_file(text: str, said: str) -> None:
    with pytest.raises(CatalogError) as caught:
        parse(text, "own.yaml")
    assert caught.value.sentences()[0].startswith(said)


@pytest.mark.parametrize("text", ["", "[]", "7", "a: [", "a: *x", "!!python/object/apply:os.system [true]", "a: \x00"])
def test_what_is_no_catalog_is_refused_in_words(text: str) -> None:
    with pytest.raises(CatalogError) as caught:
        parse(text)
    assert all(caught.value.problems)


def test_pools_are_what_the_topology_wants() -> None:
    pools = {"model": {"default": {}, "fast": {"lanes": 16}}, "tool": {"slow": {}}}
    offered = parse(catalog(pools=pools))
    assert offered.model_pools() == (Pool("default"), Pool("fast", 16))
    assert offered.tool_pools() == (Pool("slow"),)


def test_a_group_over_two_pools_is_refused() -> None:
    pools = {"model": {"default": {}, "fast": {}}}
    models = {"a": {"provider": "p"}, "b": {"provider": "p", "pool": "fast"}}
    with pytest.raises(CatalogError) as caught:
        parse(catalog(pools=pools, models=models))
    assert f"groups.{GROUP}: its models are in several pools" in caught.value.problems


def test_a_secret_is_read_when_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_FOR_TEST", "from-env")
    file = tmp_path / "key"
    file.write_text("from-file\n")
    assert Secret(env="KEY_FOR_TEST").read() == "from-env"
    assert Secret(file=file).read() == "from-file"
    file.unlink()
    monkeypatch.delenv("KEY_FOR_TEST")
    assert Secret(env="KEY_FOR_TEST").read() is None
    assert Secret(file=file).read() is None


@pytest.fixture
def edit(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path, new = tmp_path / "catalog.yaml", tmp_path / "new"
        new.write_text(text)
        new.replace(path)
        return path

    return write


@pytest.mark.requirement("catalog:reload")
def test_a_changed_file_serves_and_a_bad_one_does_not(edit: Callable[[str], Path]) -> None:
    path = edit(catalog())
    handle = CatalogHandle(path)
    heard: list[int] = []
    handle.on_change(lambda new: heard.append(len(new.models)))
    edit(catalog(models={"a": {"provider": "p"}, "b": {"provider": "p"}}))
    handle.reload_if_changed()
    assert (heard, len(handle.current.models)) == ([2], 2)
    edit("models: [")
    handle.reload_if_changed()
    path.unlink()
    handle.reload_if_changed()
    assert (heard, len(handle.current.models)) == ([2], 2)
    edit(catalog())
    handle.reload_if_changed()
    assert (heard, len(handle.current.models)) == ([2, 3], 3)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogError) as caught:
        read(tmp_path / "absent.yaml")
    assert "absent.yaml does not exist" in caught.value.problems[0]


@pytest.mark.parametrize(
    ("option", "continues"), [({}, False), ({"continues": True}, True), ({"continues": False}, False)]
)
def test_an_endpoint_is_asked_to_continue_only_if_the_catalog_says_that_it_can(
    option: dict[str, bool], *, continues: bool
) -> None:
    providers = {"p": {"kind": "openai", "base_url": "http://h/v1"}}
    found = parse(catalog(providers=providers, models={"a": {"provider": "p", **option}}, agents={}, groups={}))
    assert found.continues("a") is continues
