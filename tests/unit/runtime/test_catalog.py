"""The catalog: every mistake at once, what a request's `model` leads to, and a file that changes while it serves."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kitemesh_contracts.commands import Route
from kitemesh_contracts.errors import BadRequest, ErrorCode, NotFound, Unavailable
from kitemesh_contracts.topology import Pool
from kitemesh_runtime import catalog_file
from kitemesh_runtime.catalog import Catalog, CatalogError, Secret, parse
from kitemesh_runtime.catalog_file import CatalogHandle, WatchedFile, read
from kitemesh_runtime.catalog_text import Lines
from kitemesh_runtime.metrics import REGISTRY

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
        ("a: !!bool x", "own.yaml: not YAML: a value does not fit its tag"),
        ("a: !!timestamp x", "own.yaml: not YAML: a value does not fit its tag"),
        ("7", "own.yaml: must be a mapping"),
        ("{providers: {}, models: {}, x: 1}", "own.yaml: x: no such field"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_the_file(text: str, said: str) -> None:
    with pytest.raises(CatalogError) as caught:
        parse(text, "own.yaml")
    assert caught.value.sentences()[0].startswith(said)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "7", "a: [", "a: *x", "!!python/object/apply:os.system [true]", "a: \x00", "a: 2024-13-45", "[" * 1500],
)
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


def refused() -> float:
    value = REGISTRY.get_sample_value("kitemesh_catalog_refused")
    assert value is not None
    return value


@pytest.mark.requirement("catalog:reload")
async def test_a_changed_file_serves_and_a_bad_one_does_not(edit: Callable[[str], Path]) -> None:
    path = edit(catalog())
    handle = CatalogHandle(path)
    heard: list[int] = []
    handle.on_change(lambda new: heard.append(len(new.models)))
    edit(catalog(models={"a": {"provider": "p"}, "b": {"provider": "p"}}))
    await handle.reload()
    assert (heard, len(handle.current.models), refused()) == ([2], 2, 0)
    edit("models: [")
    await handle.reload()
    assert refused() == 1
    path.unlink()
    await handle.reload()
    assert (heard, len(handle.current.models), refused()) == ([2], 2, 1)
    edit(catalog())
    await handle.reload()
    assert (heard, len(handle.current.models), refused()) == ([2, 3], 3, 0)


@pytest.mark.requirement("catalog:reload")
async def test_a_file_that_says_the_same_as_before_changes_nothing(edit: Callable[[str], Path]) -> None:
    handle = CatalogHandle(edit(catalog()))
    heard: list[int] = []
    handle.on_change(lambda new: heard.append(len(new.models)))
    assert handle.current.specs == {}
    edit("# a comment\n" + catalog())
    await handle.reload()
    assert heard == []


@pytest.mark.requirement("catalog:pools-have-queues")
async def test_other_pools_serve_once_they_have_queues(
    edit: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_file, "POLL_S", 0.001)
    handle = CatalogHandle(edit(catalog()))
    serves: asyncio.Queue[list[str]] = asyncio.Queue()
    handle.on_change(lambda new: serves.put_nowait(sorted(new.pools.model)))
    asked: list[list[str]] = []
    answers: list[list[str] | Unavailable] = [
        [],
        ["pools.model.fast: it has no queues"],
        Unavailable(ErrorCode.BUS_DOWN, "the bus is away"),
        ["pools.model.fast: it has no queues"],
        [],
    ]

    async def object_to(offered: Catalog) -> list[str]:
        asked.append(sorted(offered.pools.model))
        answer = answers.pop(0)
        if isinstance(answer, Unavailable):
            raise answer
        return answer

    handle.object_by(object_to)
    await handle.reload()
    edit(catalog(models={"a": {"provider": "p"}, "b": {"provider": "p"}}))
    await handle.reload()
    assert asked == [["default"]], "the same pools are not asked for again"
    edit(catalog(pools={"model": {"default": {}, "fast": {}}}))
    await handle.reload()
    assert (sorted(handle.current.pools.model), refused()) == (["default"], 1)
    serves.get_nowait()
    watching = asyncio.create_task(handle.watch())
    async with asyncio.timeout(5):
        assert await serves.get() == ["default", "fast"]
    watching.cancel()
    assert (answers, refused()) == ([], 0)


async def test_a_file_is_read_when_it_has_stopped_changing(
    edit: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = WatchedFile(edit(catalog()))
    writes = iter([catalog(default_model="a"), catalog(default_model="b")])
    waits = 0

    async def write_on(_: float) -> None:
        nonlocal waits
        waits += 1
        text = next(writes, None)
        if text is not None:
            edit(text)

    monkeypatch.setattr(asyncio, "sleep", write_on)
    await file.settle()
    assert waits == 3


@pytest.mark.requirement("catalog:all-mistakes-at-once")
def test_a_name_that_is_there_twice_is_a_mistake_with_its_lines() -> None:
    text = (
        "providers: {p: {kind: scripted}}\n"
        "models:\n  a: &it {provider: p}\n  b: *it\n  a: {provider: p}\n"
        "agents:\n  x: {model: a}\n"
        "agents:\n  y: {model: nobody, model: a}\n"
    )
    with pytest.raises(CatalogError) as caught:
        parse(text)
    assert caught.value.problems == [
        "models.a: is there twice, in lines 3 and 5",
        "agents: is there twice, in lines 6 and 8",
        "agents.y.model: is there twice, in lines 9 and 9",
    ]


def test_what_a_merge_overrides_is_not_there_twice() -> None:
    text = "providers: {p: {kind: scripted}}\nmodels:\n  a: &it {provider: p, pool: x}\n  b: {<<: *it, pool: default}\n"
    with pytest.raises(CatalogError) as caught:
        parse(text)
    assert caught.value.problems == ["models.a: no model pool 'x'"]


@pytest.mark.requirement("catalog:all-mistakes-at-once")
@pytest.mark.parametrize(
    ("problem", "line"),
    [
        ("models.gpt-4.1: no provider 'x'", 3),
        ("models.gpt-4.1.can.1: must be one of tools", 4),
        ("models.gpt-4: no provider 'x'", 6),
        ("models.gpt-4.provider: must be set", 6),
        ("policies.1.then: must be set", 9),
        ("policies.7: is never reached", 7),
        ("surprise: no such field", None),
        ("catalog.yaml does not exist", None),
    ],
)
def test_the_line_of_a_mistake_is_found(problem: str, line: int | None) -> None:
    text = (
        "version: 1\nmodels:\n  gpt-4.1:\n    can: [tools, 7]\n    pool: x\n  gpt-4: {pool: y}\n"
        "policies:\n  - then: allow\n  - tools: [a]\n"
    )
    assert Lines(text).find(problem) == line


def test_a_text_that_is_no_yaml_has_no_lines() -> None:
    assert Lines("a: [").find("a: wrong") is None


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
