"""What tools, MCP servers and webhooks say of the rest of a catalog and of themselves. Pure; see `catalog_references`.

Wrong schemas, URLs and templates are found here and not when a model calls, since a call would be too late.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from kitemesh_runtime import templates
from kitemesh_runtime.catalog_addresses import find_in_headers, find_in_url
from kitemesh_runtime.catalog_parts import DEFAULT_POOL, names_of, parts, pools, texts, twice
from kitemesh_runtime.schemas import check
from kitemesh_runtime.secret_names import is_secret_name

RESERVED: Final = "webhook_"
"""How the names of the calls begin that deliver webhooks."""

_WEBHOOK_POOL: Final = "webhooks"


def find_broken_tools(content: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each mistake in tools, MCP servers and webhooks, beginning with its place."""
    return [*_in_tools(content), *_in_servers(content), *_in_webhooks(content)]


def _in_tools(content: Mapping[str, Any]) -> Iterator[str]:
    servers, known = names_of(content, "mcp_servers"), pools(content, "tool")
    for name, tool in parts(content, "tools"):
        place, server, pool = f"tools.{name}", tool.get("server"), tool.get("pool", DEFAULT_POOL)
        if name.startswith(RESERVED):
            yield f"{place}: may not begin with {RESERVED}"
        if known is not None and isinstance(pool, str) and pool not in known:
            yield f"{place}: no tool pool {pool!r}"
        if tool.get("kind") == "mcp" and servers is not None and isinstance(server, str) and server not in servers:
            yield f"{place}: no MCP server {server!r}"
        yield from _in_definition(place, tool)


def _in_definition(place: str, tool: Mapping[str, Any]) -> Iterator[str]:
    schema = tool.get("parameters", {"type": "object"})
    if isinstance(schema, Mapping):
        yield from _in_schema(f"{place}.parameters", schema)
        if schema.get("type") != "object":
            yield f"{place}.parameters: type must be object"
    if isinstance(tool.get("result_schema"), Mapping):
        yield from _in_schema(f"{place}.result_schema", tool["result_schema"])
    arguments = _arguments(schema)
    yield from _listed(place, "secret_arguments", tool, arguments)
    if isinstance(tool.get("sentence"), str):
        yield from _in_template(f"{place}.sentence", tool["sentence"], arguments)
    if tool.get("kind") == "http":
        yield from _listed(place, "query", tool, arguments)
        yield from find_in_headers(f"{place}.headers", tool.get("headers"))
        if isinstance(tool.get("url"), str):
            yield from _in_template(f"{place}.url", tool["url"], arguments)
            yield from find_in_url(f"{place}.url", tool["url"], may_be_plain=bool(tool.get("allow_networks")))


def _in_schema(place: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{place}: not a JSON Schema: {each.replace('; ', ', ')}" for each in check(schema))


def _arguments(schema: object) -> set[str]:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    return {name for name in properties if isinstance(name, str)} if isinstance(properties, Mapping) else set()


def _listed(place: str, field: str, tool: Mapping[str, Any], arguments: Iterable[str]) -> Iterator[str]:
    listed = texts(tool.get(field))
    yield from (f"{place}.{field}: {each!r} is no property of parameters" for each in listed if each not in arguments)
    yield from (f"{place}.{field}: {each!r} twice" for each in twice(listed))


def _in_template(place: str, template: str, arguments: Iterable[str]) -> Iterator[str]:
    if not templates.is_whole(template):
        yield f"{place}: every {{{{ needs an argument's name and }}}}, without blanks"
    for name in dict.fromkeys(templates.names(template)):
        if name.strip() == name != "" and name not in arguments:
            yield f"{place}: {name!r} is no property of parameters"


def _in_servers(content: Mapping[str, Any]) -> Iterator[str]:
    for name, server in parts(content, "mcp_servers"):
        place, environment = f"mcp_servers.{name}", server.get("environment")
        yield from find_in_headers(f"{place}.headers", server.get("headers"))
        yield from _in_fixed_url(place, server)
        program = next(iter(texts(server.get("command"))), "")
        if "=" in program:
            yield f"{place}.command: the program's name may not hold ="
        for variable, value in environment.items() if isinstance(environment, Mapping) else ():
            if isinstance(variable, str) and isinstance(value, str) and is_secret_name(variable):
                yield f"{place}.environment.{variable}: a secret is given by reference, env or file"


def _in_webhooks(content: Mapping[str, Any]) -> Iterator[str]:
    known = pools(content, "tool")
    for name, webhook in parts(content, "webhooks"):
        place, pool = f"webhooks.{name}", webhook.get("pool", _WEBHOOK_POOL)
        if known is not None and isinstance(pool, str) and pool not in known:
            yield f"{place}: no tool pool {pool!r}: list it under pools.tool beside {DEFAULT_POOL!r}"
        yield from (f"{place}.events: {each!r} twice" for each in twice(texts(webhook.get("events"))))
        yield from _in_fixed_url(place, webhook)


def _in_fixed_url(place: str, part: Mapping[str, Any]) -> Iterator[str]:
    url = part.get("url")
    if isinstance(url, str):
        found = list(find_in_url(f"{place}.url", url, may_be_plain=bool(part.get("allow_networks"))))
        yield from found or ([f"{place}.url: has no arguments to fill in"] if "{{" in url else [])
