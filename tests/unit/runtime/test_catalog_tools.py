"""The catalog's tools, rules and webhooks: every mistake at once, and what makes a tool another one."""

from typing import Any

import pytest
import yaml

from kitemesh_cli.dev_catalog import packaged_text
from kitemesh_runtime.catalog import Catalog, CatalogError, parse

STRING = {"type": "string"}
PAY: dict[str, Any] = {
    "kind": "http",
    "method": "POST",
    "url": "https://pay.example/v1/accounts/{{account}}/payments",
    "headers": {"Accept": "application/json", "X-Api-Key": {"env": "PAY_KEY"}},
    "query": ["currency"],
    "secret_arguments": ["pin"],
    "sentence": "Pay {{amount}} from {{account}}",
    "parameters": {
        "type": "object",
        "properties": {"account": STRING, "amount": {"type": "number"}, "currency": STRING, "pin": STRING},
        "required": ["account", "amount"],
    },
}
SEARCH: dict[str, Any] = {"kind": "mcp", "server": "docs", "parameters": {"type": "object"}}
CLOCK: dict[str, Any] = {"kind": "python", "entry_point": "clock"}
PARTS: dict[str, Any] = {
    "providers": {"p": {"kind": "scripted"}},
    "models": {"a": {"provider": "p"}},
    "agents": {"clerk": {"model": "a", "tools": ["pay", "search"]}},
    "pools": {"tool": {"default": {}, "webhooks": {}}},
    "tools": {"pay": PAY, "search": SEARCH, "clock": CLOCK},
    "mcp_servers": {"docs": {"url": "https://docs.example/mcp", "headers": {"Authorization": {"file": "/run/token"}}}},
    "policies": [
        {"tools": ["pa*"], "when": [{"argument": "amount", "op": "gt", "value": 100}], "then": "hold"},
        {"tools": ["search"], "agents": ["cl?rk"], "then": "deny", "reason": "Not now"},
    ],
    "webhooks": {
        "desk": {
            "url": "https://desk.example/hook",
            "events": ["approval.requested", "turn.failed"],
            "secret": {"env": "DESK_SECRET"},
        }
    },
}


def read(**changes: Any) -> Catalog:
    return parse(yaml.safe_dump({**PARTS, **changes}))


def mistakes(**changes: Any) -> list[str]:
    with pytest.raises(CatalogError) as caught:
        read(**changes)
    return caught.value.problems


def pay(**changes: Any) -> dict[str, Any]:
    return {"tools": {"pay": {**PAY, **changes}, "search": SEARCH, "clock": CLOCK}}


def rule(**changes: Any) -> dict[str, Any]:
    return {"policies": [{"then": "hold", **changes}]}


def when(**changes: Any) -> dict[str, Any]:
    return rule(tools=["pay"], when=[{"argument": "amount", "op": "eq", "value": 1, **changes}])


def hook(**changes: Any) -> dict[str, Any]:
    return {"webhooks": {"desk": {**PARTS["webhooks"]["desk"], **changes}}}


def server(**changes: Any) -> dict[str, Any]:
    return {"mcp_servers": {"docs": changes}}


def test_a_catalog_with_every_kind_of_tool_is_read() -> None:
    catalog = read()
    assert {name: tool.kind for name, tool in catalog.tools.items()} == {
        "pay": "http",
        "search": "mcp",
        "clock": "python",
    }
    assert {tool.effects() for tool in catalog.tools.values()} == {"once"}
    assert read(**pay(method="GET")).tools["pay"].effects() == "safe"
    assert read(**pay(effect="keyed")).tools["pay"].effects() == "keyed"


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"agents": {"clerk": {"model": "a", "tools": ["pey"]}}}, "agents.clerk: no tool 'pey'"),
    ({"agents": {"clerk": {"model": "a", "tools": ["pay", "search", "pay"]}}}, "agents.clerk: tool 'pay' twice"),
    (
        {"agents": {"clerk": {"model": "a", "tools": ["a b"]}}},
        "agents.clerk.tools.0: must be 1 to 64 of A-Z a-z 0-9 _ -",
    ),
    ({"tools": {**PARTS["tools"], "webhook_x": CLOCK}}, "tools.webhook_x: may not begin with webhook_"),
    ({"tools": {**PARTS["tools"], "a.b": CLOCK}}, "tools.a.b: must be 1 to 64 of A-Z a-z 0-9 _ -"),
    (pay(pool="slow"), "tools.pay: no tool pool 'slow'"),
    (pay(kind="htp"), "tools.pay.kind: 'htp' is not one of http, mcp, python"),
    (pay(query=["currency", "curency"]), "tools.pay.query: 'curency' is no property of parameters"),
    (pay(query=["currency", "currency"]), "tools.pay.query: 'currency' twice"),
    (pay(secret_arguments=["pni"]), "tools.pay.secret_arguments: 'pni' is no property of parameters"),
    (pay(sentence="Pay {{amuont}}"), "tools.pay.sentence: 'amuont' is no property of parameters"),
    (pay(sentence="Pay {{ amount }}"), "tools.pay.sentence: every {{ needs an argument's name and }}, without blanks"),
    (pay(sentence="Pay {{amount"), "tools.pay.sentence: every {{ needs an argument's name and }}, without blanks"),
    (pay(url="https://pay.example/{{acount}}"), "tools.pay.url: 'acount' is no property of parameters"),
    (pay(url="https://{{account}}.example/"), "tools.pay.url: the host must be fixed, without {{…}}"),
    (pay(url="https://pay.example{{account}}"), "tools.pay.url: the host must be fixed, without {{…}}"),
    (pay(url="{{account}}://pay.example/"), "tools.pay.url: must begin with https://"),
    (pay(url="file:///etc/passwd"), "tools.pay.url: must begin with https://"),
    (
        pay(url="http://pay.example/"),
        "tools.pay.url: must begin with https://, or allow_networks must say which networks http:// may go to",
    ),
    (pay(url="https://user:pw@pay.example/"), "tools.pay.url: may not hold a user or password"),
    (pay(url="https://pay.example@evil.example/"), "tools.pay.url: may not hold a user or password"),
    (
        pay(url="https://pay.example/a b"),
        "tools.pay.url: may hold nothing but ASCII without blanks, braces, backslashes and fragments",
    ),
    (pay(url="https://pay.example\\@evil/"), "tools.pay.url: may not hold a user or password"),
    (
        pay(url="https://pay.example/#x"),
        "tools.pay.url: may hold nothing but ASCII without blanks, braces, backslashes and fragments",
    ),
    (pay(url="https:///x"), "tools.pay.url: has no valid host and port"),
    (pay(url="https://pay.example:99999/"), "tools.pay.url: has no valid host and port"),
    (
        pay(headers={"Authorization": "Bearer x"}),
        "tools.pay.headers.Authorization: a secret is given by reference, env or file",
    ),
    (pay(headers={"x-api-key": "x"}), "tools.pay.headers.x-api-key: a secret is given by reference, env or file"),
    (pay(headers={"Cookie": "x"}), "tools.pay.headers.Cookie: a secret is given by reference, env or file"),
    (pay(headers={"X-Kitemesh-Signature": "x"}), "tools.pay.headers.X-Kitemesh-Signature: is not the catalog's to set"),
    (pay(headers={"Host": "x"}), "tools.pay.headers.Host: is not the catalog's to set"),
    (
        pay(headers={"X-A": {"enw": "s3cret"}}),
        "tools.pay.headers.X-A: must be text, or say where a secret is found: exactly one of env, file",
    ),
    (
        pay(headers={"X-A": 5}),
        "tools.pay.headers.X-A: must be text, or say where a secret is found: exactly one of env, file",
    ),
    (
        pay(allow_networks=["127.0.0.1/8"]),
        "tools.pay.allow_networks.0: value is not a valid IPv4 or IPv6 network",
    ),
    (pay(headers={"a b": "x"}), "tools.pay.headers: 'a b' is no header's name"),
    (pay(headers={"X-A": "x\r\ny: z"}), "tools.pay.headers.X-A: may hold nothing but printable ASCII"),
    (pay(parameters={"type": "array"}), "tools.pay.parameters: type must be object"),
    (pay(parameters={}), "tools.pay.parameters: type must be object"),
    (
        pay(parameters={"type": "object", "properties": {"a": {"$ref": "https://evil.example/x"}}}),
        (
            "tools.pay.parameters: not a JSON Schema: Resource 'https://evil.example/x' is not present in a registry "
            "and retrieving it failed: Retrieval is disabled, cannot fetch https://evil.example/x"
        ),
    ),
    (
        pay(result_schema={"$ref": "file:///etc/passwd"}),
        (
            "tools.pay.result_schema: not a JSON Schema: Resource 'file:///etc/passwd' is not present in a registry "
            "and retrieving it failed: Retrieval is disabled, cannot fetch file:///etc/passwd"
        ),
    ),
    ({"mcp_servers": {}}, "tools.search: no MCP server 'docs'"),
    (server(), "mcp_servers.docs: needs exactly one of url, command"),
    (
        server(url="http://docs.example/mcp"),
        "mcp_servers.docs.url: must begin with https://, or allow_networks must say which networks http:// may go to",
    ),
    (
        server(command=["serve"], environment={"GITHUB_TOKEN": "x"}),
        "mcp_servers.docs.environment.GITHUB_TOKEN: a secret is given by reference, env or file",
    ),
    (rule(tools=["payy"]), "policies.0.tools: 'payy' matches no tool"),
    (rule(tools=["[p]ay"]), "policies.0.tools: '[p]ay' matches no tool"),
    (rule(agents=["Clerk"]), "policies.0.agents: 'Clerk' matches no agent"),
    (rule(tools=["pay", "pay"]), "policies.0.tools: 'pay' twice"),
    (rule(tools=[]), "policies.0.tools: must have at least 1 entry"),
    (rule(then="ask"), "policies.0.then: must be one of allow, hold, deny"),
    (rule(then="deny", expires_after_s=5), "policies.0.expires_after_s: means nothing without then: hold"),
    (rule(then="allow", decide="batch"), "policies.0.decide: means nothing without then: hold"),
    (
        {"policies": [{"then": "allow"}, {"tools": ["pay"], "then": "hold"}]},
        "policies.1: is never reached, since policies.0 takes every call",
    ),
    (when(argument="amuont"), "policies.0.when.0: none of its tools has an argument 'amuont'"),
    (when(argument="amuont.x"), "policies.0.when.0: none of its tools has an argument 'amuont.x'"),
    (when(op="in", value=5), "policies.0.when.0: value of in must be a list"),
    (when(op="not_in", value=[]), "policies.0.when.0: value of not_in must have at least 1 entry"),
    (when(op="eq", value=[1]), "policies.0.when.0: value of eq must be a single value"),
    (when(op="lt", value=True), "policies.0.when.0: value of lt must be a number or text"),
    (when(op="matches", value=5), "policies.0.when.0: value of matches must be text"),
    (
        {"pools": {"tool": {"default": {}}}},
        "webhooks.desk: no tool pool 'webhooks': list it under pools.tool beside 'default'",
    ),
    (hook(events=["turn.failed", "turn.failed"]), "webhooks.desk.events: 'turn.failed' twice"),
    (hook(url="https://a:b@desk.example/"), "webhooks.desk.url: may not hold a user or password"),
    (hook(url="https://{{host}}/"), "webhooks.desk.url: the host must be fixed, without {{…}}"),
    (hook(url="https://desk.example/{{id}}"), "webhooks.desk.url: has no arguments to fill in"),
    (server(url="https://docs.example/{{id}}"), "mcp_servers.docs.url: has no arguments to fill in"),
    (server(command=["A=b", "serve"]), "mcp_servers.docs.command: the program's name may not hold ="),
    (hook(secret="literal"), "webhooks.desk.secret: must be a mapping"),
]


@pytest.mark.requirement("catalog:all-mistakes-at-once")
@pytest.mark.parametrize(("changes", "problem"), MISTAKES, ids=[problem for _, problem in MISTAKES])
def test_a_mistake_is_named_with_its_place(changes: dict[str, Any], problem: str) -> None:
    assert problem in mistakes(**changes)


@pytest.mark.requirement("catalog:all-mistakes-at-once")
def test_mistakes_of_shape_and_of_reference_are_told_together() -> None:
    found = mistakes(
        tools={"pay": {**PAY, "effect": "twice", "url": "https://{{a}}/"}, "search": {**SEARCH, "server": "x"}},
        policies=[{"tools": ["nobody"], "then": "hold", "scope": "root"}],
        webhooks=7,
    )
    assert {problem.partition(":")[0] for problem in found} >= {
        "tools.pay.effect",
        "tools.pay.url",
        "tools.search",
        "policies.0.tools",
        "policies.0.scope",
        "webhooks",
    }


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objct"},
        {"type": "object", "properties": {"a": {"pattern": "("}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/nowhere"}}},
        {"type": "object", "$schema": "https://nobody.example/schema"},
        {"type": "object", "minProperties": "1"},
    ],
)
def test_a_schema_that_is_none_is_refused_when_the_catalog_is_read(schema: dict[str, Any]) -> None:
    found = mistakes(tools={**PARTS["tools"], "clock": {**CLOCK, "parameters": schema}})
    assert any(each.startswith("tools.clock.parameters") and "not a JSON Schema" in each for each in found)


def test_a_schema_that_nests_too_deep_or_holds_a_circle_is_refused_in_words() -> None:
    deep: dict[str, Any] = {"type": "object"}
    for _ in range(70):
        deep = {"type": "object", "properties": {"a": deep}}
    found = mistakes(tools={**PARTS["tools"], "clock": {**CLOCK, "parameters": deep}})
    assert "tools.clock.parameters: not a JSON Schema: the schema nests too deep" in found
    circle: dict[str, Any] = {"type": "object", "properties": {}}
    circle["properties"]["self"] = circle
    assert any(
        each.startswith("tools.clock.parameters")
        for each in mistakes(tools={**PARTS["tools"], "clock": {**CLOCK, "parameters": circle}})
    )


def test_schemas_of_an_older_draft_and_with_parts_of_their_own_are_taken() -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"a": {"$ref": "#/definitions/a"}},
        "definitions": {"a": {"type": "string"}},
    }
    assert read(tools={**PARTS["tools"], "clock": {**CLOCK, "parameters": schema}})


def test_http_is_for_networks_that_were_named() -> None:
    assert read(**pay(url="http://127.0.0.1:8080/", allow_networks=["127.0.0.0/8"]))


def test_a_condition_on_an_argument_that_a_schema_leaves_open_is_taken() -> None:
    assert read(policies=[{"when": [{"argument": "anything", "op": "eq", "value": 1}], "then": "hold"}])


def test_no_mistake_repeats_a_secret_that_was_spelled_out() -> None:
    found = mistakes(**pay(headers={"Authorization": "Bearer s3cret"}), **hook(secret="s3cret"))
    assert "s3cret" not in "".join(found)


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "https://other.example/{{account}}"},
        {"method": "PUT"},
        {"effect": "keyed"},
        {"description": "Pays."},
        {"headers": {}},
        {"parameters": {**PAY["parameters"], "required": []}},
    ],
)
def test_what_changes_a_call_changes_the_tools_version(changes: dict[str, Any]) -> None:
    assert read(**pay(**changes)).tools["pay"].version() != read().tools["pay"].version()


def test_what_changes_no_call_leaves_the_version_as_it_is() -> None:
    before = read().tools["pay"]
    slow = {**PARTS["pools"]["tool"], "slow": {}}
    after = read(**pay(pool="slow", sentence="Pay", secret_arguments=[]), pools={"tool": slow}).tools["pay"]
    assert after.version() == before.version()
    assert parse(yaml.safe_dump(PARTS, sort_keys=False)).tools["pay"].version() == before.version()


def test_another_mcp_server_under_the_same_name_is_another_tool() -> None:
    moved = read(**server(url="https://other.example/mcp")).tools["search"].version()
    assert moved != read().tools["search"].version()
    assert read().tools["search"].version() == read().tools["search"].version()


@pytest.mark.parametrize("name", ["get_weather", "delete_record"])
def test_the_packaged_catalog_has_a_tool_that_runs_and_one_that_is_held(name: str) -> None:
    catalog = parse(packaged_text())
    assert name in catalog.agents["assistant"].tools
    assert catalog.tools[name].parameters["additionalProperties"] is False
