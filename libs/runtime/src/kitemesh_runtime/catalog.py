"""The catalog: which providers, models, groups, agents, tools and pools exist. One YAML text, every mistake at once.

It names secrets and never holds them. Where the text comes from, and when it changes, is `catalog_file`'s business.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

import yaml
from msgspec import Raw
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kitemesh_contracts.codec import encode
from kitemesh_contracts.commands import Mode, Route
from kitemesh_contracts.content import ToolSpec
from kitemesh_contracts.errors import BadRequest, ErrorCode, NotFound
from kitemesh_contracts.topology import Pool
from kitemesh_runtime.catalog_references import find_broken, is_uuid
from kitemesh_runtime.catalog_secret import Secret
from kitemesh_runtime.catalog_text import load
from kitemesh_runtime.catalog_tools import Limits, McpServer, McpTool, Policy, Tool, Webhook
from kitemesh_runtime.knowledge import DEFAULT_BASE
from kitemesh_runtime.problems import describe

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
ModelId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$")]
Seconds = Annotated[float, Field(gt=0, le=3600)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScriptedProvider(_Part):
    """Deterministic answers from inside the runner: for the first start, tests and benchmarks."""

    kind: Literal["scripted"]
    delay_ms: Annotated[float, Field(ge=0, le=60_000, description="Pause before each token.")] = 0.0


class FixedProvider(_Part):
    """One answer to everything: what stands in for a model during maintenance."""

    kind: Literal["fixed"]
    text: Annotated[str, Field(min_length=1, max_length=10_000)]


class OpenAIProvider(_Part):
    """Any OpenAI-compatible endpoint."""

    kind: Literal["openai"]
    base_url: Annotated[str, Field(pattern=r"^https?://\S+$", description="Up to and including /v1.")]
    api_key: Secret | None = None
    connect_timeout_s: Seconds = 5.0
    first_token_timeout_s: Seconds = 60.0
    silence_timeout_s: Annotated[Seconds, Field(description="Longest pause between two deltas.")] = 30.0
    total_timeout_s: Seconds = 600.0
    retries: Annotated[int, Field(ge=0, le=5, description="Further tries before the first delta.")] = 2


Provider = Annotated[ScriptedProvider | FixedProvider | OpenAIProvider, Field(discriminator="kind")]


Capability = Literal["tools", "images", "files", "json_object", "json_schema", "logprobs", "choices", "reasoning"]
"""What not every model can: call tools, look at images and other files, keep to a form of answer, ..."""


class Model(_Part):
    """A model that clients may name."""

    provider: Name
    upstream: str | None = Field(None, description="The provider's own name for it; the catalog id when absent.")
    pool: Name = "default"
    owned_by: str = "kitemesh"
    context_tokens: Annotated[int, Field(gt=0)] | None = None
    continues: Annotated[
        bool | None,
        Field(description="Goes on with an answer that broke off; when absent, true of scripted models only."),
    ] = None
    can: Annotated[
        tuple[Capability, ...] | None,
        Field(description="What requests may ask of it; everything when absent."),
    ] = None


class History(_Part):
    """How much of a conversation a model is shown: the newest whole turns that are within every bound."""

    turns: Annotated[int, Field(ge=0, le=500)] = 20
    characters: Annotated[int, Field(ge=0, le=4_000_000)] = 200_000
    messages: Annotated[int, Field(ge=0, le=10_000)] | None = None
    tokens: Annotated[int, Field(ge=0, le=1_000_000, description="Estimated, at four characters each.")] | None = None


class Agent(_Part):
    """A prompt over a model, with its rules."""

    model: str = Field(description="A model id, or group:<uuid>.")
    prompt: str = ""
    headers_schema: Annotated[
        dict[str, Any] | None,
        Field(description="JSON Schema of the values that a request gives for the {{name}} places of the prompt."),
    ] = None
    mode: Mode = "classic"
    history: History = History()
    on_busy: Annotated[
        Literal["queue", "reject", "cancel_previous"],
        Field(description="What a new message does while a turn of its conversation runs."),
    ] = "queue"
    on_held: Annotated[
        Literal["supersede", "reject", "queue"],
        Field(description="What a new message does while a turn of its conversation is held."),
    ] = "supersede"
    tools: Annotated[tuple[Name, ...], Field(max_length=64, description="Server tools that it may call.")] = ()
    limits: Limits = Limits()


class Group(_Part):
    """Models behind one public id, in the order they are tried."""

    models: Annotated[tuple[ModelId, ...], Field(min_length=1)]
    weights: Annotated[
        dict[ModelId, Annotated[int, Field(ge=0, le=1000)]],
        Field(
            description="How often each model is tried first, beside the others here. One that is not here, or has 0, "
            "is tried only after those; without any, all are tried in their order."
        ),
    ] = {}
    agent: Name | None = None


class Role(_Part):
    """Who speaks, for requests that name it."""

    prompt: Annotated[str, Field(min_length=1, max_length=100_000)]
    retrieval: Annotated[
        bool | None, Field(description="Passages of the knowledge base go with it; as the request says when absent.")
    ] = None
    knowledge: Annotated[
        tuple[Name, ...], Field(min_length=1, max_length=16, description="The bases that are searched.")
    ] = (DEFAULT_BASE,)


class PoolPart(_Part):
    """Workers that scale together."""

    lanes: Annotated[int, Field(ge=1, le=64)] = 1


class Pools(_Part):
    """Pools by the kind of work."""

    model: dict[Name, PoolPart] = {"default": PoolPart()}
    tool: dict[Name, PoolPart] = {"default": PoolPart()}


class Catalog(_Part):
    """Everything a cluster offers."""

    version: Literal[1] = 1
    default_model: str | None = None
    pools: Pools = Pools()
    providers: dict[Name, Provider]
    models: dict[ModelId, Model]
    agents: dict[Name, Agent] = {}
    groups: dict[str, Group] = {}
    roles: dict[str, Role] = {}
    tools: dict[Name, Tool] = {}
    mcp_servers: dict[Name, McpServer] = {}
    policies: Annotated[tuple[Policy, ...], Field(description="Rules over tool calls; the first that matches.")] = ()
    webhooks: dict[Name, Webhook] = {}

    @model_validator(mode="after")
    def _references(self) -> "Catalog":
        wrong = find_broken(self.model_dump())
        if wrong:
            raise ValueError("; ".join(wrong))
        for tool in self.tools.values():
            if isinstance(tool, McpTool):
                tool.bind(self.mcp_servers[tool.server])
        return self

    @cached_property
    def specs(self) -> dict[str, ToolSpec]:
        """The tools as models are told of them."""
        return {
            name: ToolSpec(name=name, description=tool.description, parameters=Raw(encode(tool.parameters)))
            for name, tool in self.tools.items()
        }

    def continues(self, model: str) -> bool:
        """Tell whether a model may be asked to go on with an answer that broke off."""
        part = self.models[model]
        if part.continues is None:
            return isinstance(self.providers[part.provider], ScriptedProvider)
        return part.continues

    def can(self, model: str, what: Capability) -> bool:
        """Tell whether requests may ask that of a model."""
        able = self.models[model].can
        return able is None or what in able

    def resolve(self, requested: str) -> Route:
        """Say where a request's `model` is answered: `group:<uuid>`, `agent:<id>` or a model id.

        Raises:
            BadRequest: `group:` is not followed by a UUID.
            NotFound: There is no such model.

        """
        if requested.startswith("group:"):
            key = requested.removeprefix("group:").lower()
            if not is_uuid(key):
                raise BadRequest(ErrorCode.REQUEST_INVALID, "model: group: must be followed by a UUID")
            group = self.groups.get(key)
            if group is not None:
                return self._route(requested, group.models, group.agent)
        elif requested.startswith("agent:"):
            name = requested.removeprefix("agent:")
            agent = self.agents.get(name)
            if agent is not None:
                target = self.groups.get(agent.model.removeprefix("group:"))
                return self._route(requested, target.models if target else (agent.model,), name)
        elif requested in self.models:
            return self._route(requested, (requested,), None)
        raise NotFound(ErrorCode.MODEL_UNKNOWN, "The requested model does not exist or is not available to this key")

    def weights(self, requested: str) -> Mapping[str, int]:
        """Return the weights of the group that a request's `model` leads to; none where it leads to a model."""
        if requested.startswith("agent:"):
            requested = self.agents[requested.removeprefix("agent:")].model
        group = self.groups.get(requested.removeprefix("group:").lower()) if requested.startswith("group:") else None
        return group.weights if group is not None else {}

    def _route(self, requested: str, models: tuple[str, ...], agent: str | None) -> Route:
        return Route(requested=requested, models=models, pool=self.models[models[0]].pool, agent=agent)

    def offered(self) -> list[tuple[str, str]]:
        """List what a request may name, with its owner: models, then groups, then agents."""
        return [
            *((i, model.owned_by) for i, model in self.models.items()),
            *((f"group:{key}", "kitemesh") for key in self.groups),
            *((f"agent:{name}", "kitemesh") for name in self.agents),
        ]

    def model_pools(self) -> tuple[Pool, ...]:
        """Return the model pools as the topology wants them."""
        return tuple(Pool(name, part.lanes) for name, part in self.pools.model.items())

    def tool_pools(self) -> tuple[Pool, ...]:
        """Return the tool pools as the topology wants them."""
        return tuple(Pool(name, part.lanes) for name, part in self.pools.tool.items())


class CatalogError(Exception):
    """A catalog cannot be used.

    Attributes:
        problems: One sentence each, beginning with the place.
        source: Which file it is; empty when it is none.

    """

    def __init__(self, problems: list[str], source: str = "") -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
        self.source = source

    def sentences(self) -> list[str]:
        """Return the problems, each beginning with the file."""
        named = self.source and not self.problems[0].startswith(self.source)
        return [f"{self.source}: {problem}" if named else problem for problem in self.problems]


def parse(text: str, source: str = "") -> Catalog:
    """Read a catalog; `source` names the file in what is said of the whole of it.

    Raises:
        CatalogError: With every mistake found.

    """
    try:
        raw, twice = load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise CatalogError([_not_yaml(exc, source)], source) from exc
    if raw is None:
        raise CatalogError([f"{source or 'the catalog'} is empty"], source)
    try:
        catalog = Catalog.model_validate(raw)
    except ValidationError as exc:
        problems = [str(each) for each in describe(Catalog, exc)]
        # The validator of references runs only when every part is right.
        problems += [each for each in (*find_broken(raw), *twice) if each not in problems]
        raise CatalogError(problems, source) from exc
    if twice:
        raise CatalogError(twice, source)
    return catalog


def _not_yaml(error: Exception, source: str) -> str:
    name = source or "the catalog"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        words = " ".join(filter(None, [error.context, error.problem]))
        return f"{name}:{error.problem_mark.line + 1}: not YAML: {words}"
    reason = error.reason if isinstance(error, yaml.reader.ReaderError) else str(error)
    return f"{name}: not YAML: {' '.join(reason.split())}"
