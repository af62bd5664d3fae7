"""What one part of a catalog says of another: every name must lead somewhere. Pure.

It takes the catalog as plain values, as YAML gave them, and looks past whatever has the wrong shape, so that these
mistakes are found beside all others. No sentence holds `; `, which parts them where they are joined.
"""

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

from kitemesh_runtime.catalog_parts import DEFAULT_POOL, names_of, parts, pools, texts, twice
from kitemesh_runtime.catalog_prompts import find_in_prompt
from kitemesh_runtime.catalog_rule_references import find_broken_rules
from kitemesh_runtime.catalog_tool_references import find_broken_tools

_RESERVED: Final = ("group:", "agent:")


def find_broken(content: object) -> list[str]:
    """Return a sentence for each name that nothing bears or nothing may bear, beginning with its place."""
    if not isinstance(content, Mapping):
        return []
    return [
        *_in_models(content),
        *_in_groups(content),
        *_in_roles(content),
        *_in_agents(content),
        *_in_default(content),
        *find_broken_tools(content),
        *find_broken_rules(content),
    ]


def is_uuid(text: str) -> bool:
    """Say whether a text is a UUID in its one written form, lower case with hyphens."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _in_models(content: Mapping[str, Any]) -> Iterator[str]:
    providers, known = content.get("providers"), pools(content, "model")
    kinds = {name: part.get("kind") for name, part in parts(content, "providers")}
    for name, model in parts(content, "models"):
        yield from (f"models.{name}: can {each!r} twice" for each in twice(texts(model.get("can"))))
        provider, pool = model.get("provider"), model.get("pool", DEFAULT_POOL)
        if isinstance(providers, Mapping) and isinstance(provider, str) and provider not in providers:
            yield f"models.{name}: no provider {provider!r}"
        if known is not None and isinstance(pool, str) and pool not in known:
            yield f"models.{name}: no model pool {pool!r}"
        if model.get("continues") is True and isinstance(provider, str) and kinds.get(provider) == "fixed":
            yield f"models.{name}: provider {provider!r} cannot go on with an answer"
        if name.startswith(_RESERVED):
            yield f"models.{name}: may not begin with group: or agent:"


def _in_groups(content: Mapping[str, Any]) -> Iterator[str]:
    models, agents = content.get("models"), content.get("agents", {})
    known = dict(parts(content, "models"))
    odd = [name for name, _ in parts(content, "groups") if not is_uuid(name)]
    if odd:
        yield f"groups: not lower-case UUIDs: {', '.join(odd)}"
    for name, group in parts(content, "groups"):
        wanted, agent = texts(group.get("models")), group.get("agent")
        if isinstance(models, Mapping):
            yield from (f"groups.{name}: no model {each!r}" for each in wanted if each not in models)
        yield from (f"groups.{name}: model {each!r} twice" for each in twice(wanted))
        weights = group.get("weights")
        if isinstance(weights, Mapping):
            yield from (
                f"groups.{name}: weights: {each!r} is none of its models" for each in weights if each not in wanted
            )
        if isinstance(agents, Mapping) and isinstance(agent, str) and agent not in agents:
            yield f"groups.{name}: no agent {agent!r}"
        if len({str(known[each].get("pool", DEFAULT_POOL)) for each in wanted if each in known}) > 1:
            yield f"groups.{name}: its models are in several pools"


def _in_roles(content: Mapping[str, Any]) -> Iterator[str]:
    odd = [name for name, _ in parts(content, "roles") if not is_uuid(name)]
    if odd:
        yield f"roles: not lower-case UUIDs: {', '.join(odd)}"
    for name, role in parts(content, "roles"):
        yield from (f"roles.{name}: knowledge {each!r} twice" for each in twice(texts(role.get("knowledge"))))


def _in_agents(content: Mapping[str, Any]) -> Iterator[str]:
    tools = names_of(content, "tools")
    for name, agent in parts(content, "agents"):
        wanted = texts(agent.get("tools"))
        if _leads_nowhere(content, agent.get("model")):
            yield f"agents.{name}: no model {agent['model']!r}"
        if tools is not None:
            yield from (f"agents.{name}: no tool {each!r}" for each in wanted if each not in tools)
        yield from (f"agents.{name}: tool {each!r} twice" for each in twice(wanted))
        if isinstance(agent.get("headers_schema"), Mapping):
            yield from find_in_prompt(f"agents.{name}", agent.get("prompt"), agent["headers_schema"])


def _in_default(content: Mapping[str, Any]) -> Iterator[str]:
    if _leads_nowhere(content, content.get("default_model")):
        yield f"default_model: no model {content['default_model']!r}"


def _leads_nowhere(content: Mapping[str, Any], target: object) -> bool:
    models, groups = content.get("models"), content.get("groups", {})
    if not isinstance(target, str) or not isinstance(models, Mapping) or not isinstance(groups, Mapping):
        return False
    return target not in models and target.removeprefix("group:") not in groups
