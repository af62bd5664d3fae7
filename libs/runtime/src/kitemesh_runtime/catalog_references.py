"""What one part of a catalog says of another: every name must lead somewhere. Pure.

It takes the catalog as plain values, as YAML gave them, and looks past whatever has the wrong shape, so that these
mistakes are found beside all others.
"""

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

_DEFAULT_POOL: Final = "default"
_RESERVED: Final = ("group:", "agent:")


def find_broken(content: object) -> list[str]:
    """Return a sentence for each name that nothing bears or nothing may bear, beginning with its place."""
    if not isinstance(content, Mapping):
        return []
    return [*_in_models(content), *_in_groups(content), *_in_agents(content), *_in_default(content)]


def is_uuid(text: str) -> bool:
    """Say whether a text is a UUID in its one written form, lower case with hyphens."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _in_models(content: Mapping[str, Any]) -> Iterator[str]:
    providers, pools = content.get("providers"), _model_pools(content)
    for name, model in _parts(content, "models"):
        provider, pool = model.get("provider"), model.get("pool", _DEFAULT_POOL)
        if isinstance(providers, Mapping) and isinstance(provider, str) and provider not in providers:
            yield f"models.{name}: no provider {provider!r}"
        if pools is not None and isinstance(pool, str) and pool not in pools:
            yield f"models.{name}: no model pool {pool!r}"
        if name.startswith(_RESERVED):
            yield f"models.{name}: may not begin with group: or agent:"


def _in_groups(content: Mapping[str, Any]) -> Iterator[str]:
    models, agents = content.get("models"), content.get("agents", {})
    known = dict(_parts(content, "models"))
    odd = [name for name, _ in _parts(content, "groups") if not is_uuid(name)]
    if odd:
        yield f"groups: not lower-case UUIDs: {', '.join(odd)}"
    for name, group in _parts(content, "groups"):
        listed, agent = group.get("models"), group.get("agent")
        wanted = [each for each in listed if isinstance(each, str)] if isinstance(listed, list | tuple) else []
        if isinstance(models, Mapping):
            yield from (f"groups.{name}: no model {each!r}" for each in wanted if each not in models)
        if isinstance(agents, Mapping) and isinstance(agent, str) and agent not in agents:
            yield f"groups.{name}: no agent {agent!r}"
        if len({str(known[each].get("pool", _DEFAULT_POOL)) for each in wanted if each in known}) > 1:
            yield f"groups.{name}: its models are in several pools"


def _in_agents(content: Mapping[str, Any]) -> Iterator[str]:
    for name, agent in _parts(content, "agents"):
        if _leads_nowhere(content, agent.get("model")):
            yield f"agents.{name}: no model {agent['model']!r}"


def _in_default(content: Mapping[str, Any]) -> Iterator[str]:
    if _leads_nowhere(content, content.get("default_model")):
        yield f"default_model: no model {content['default_model']!r}"


def _leads_nowhere(content: Mapping[str, Any], target: object) -> bool:
    models, groups = content.get("models"), content.get("groups", {})
    if not isinstance(target, str) or not isinstance(models, Mapping) or not isinstance(groups, Mapping):
        return False
    return target not in models and target.removeprefix("group:") not in groups


def _model_pools(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the model pools; `None` when what is given is not readable as such."""
    pools = content.get("pools", {})
    found = pools.get("model", {_DEFAULT_POOL: {}}) if isinstance(pools, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _parts(content: Mapping[str, Any], kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    parts = content.get(kind)
    if isinstance(parts, Mapping):
        yield from ((name, part) for name, part in parts.items() if isinstance(name, str) and isinstance(part, Mapping))
