"""The catalog's tools, the rules over their calls, and webhooks: shapes, defaults, and a tool's version.

A tool's version is the SHA-256 of its definition: what was approved under one version never runs under another.
"""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, PrivateAttr, model_validator

from kitemesh_contracts import canonical
from kitemesh_runtime.catalog_secret import Secret, TextOrSecret

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Effect = Literal["safe", "keyed", "once"]
Template = Annotated[str, Field(min_length=1, max_length=2000)]

Pattern = Annotated[str, Field(min_length=1, max_length=200)]
"""A name, with `*` for any characters and `?` for one."""

_Scalar = bool | int | float | str
_ORDERED: Final = frozenset({"lt", "le", "gt", "ge"})
_LISTED: Final = frozenset({"in", "not_in"})
_NOT_THE_TOOL: Final = frozenset({"pool", "sentence", "secret_arguments"})
_NOT_THE_SERVER: Final = frozenset({"connect_timeout_s"})


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Tool(_Part):
    description: Annotated[str, Field(max_length=16_000, description="What the model is told.")] = ""
    parameters: Annotated[dict[str, Any], Field(description="JSON Schema of the arguments.")] = {"type": "object"}
    effect: Annotated[
        Effect | None,
        Field(description="How often it may run; without one, safe for an HTTP GET and once for everything else."),
    ] = None
    pool: Name = "default"
    timeout_s: Seconds = 30.0
    max_result_bytes: Annotated[int, Field(ge=1, le=1024 * 1024)] = 256 * 1024
    sentence: Annotated[
        Template | None, Field(description="The call for people, with {{argument}} in place of each argument.")
    ] = None
    secret_arguments: Annotated[
        tuple[str, ...], Field(description="Arguments that nobody is shown, besides writeOnly ones.")
    ] = ()

    def effects(self) -> Effect:
        """Say how often it may run."""
        return self.effect or "once"

    def version(self) -> str:
        """Return the SHA-256 of what decides what a call does."""
        return self._version

    @cached_property
    def _version(self) -> str:
        return _hash(self, _NOT_THE_TOOL)


class HttpTool(_Tool):
    """One HTTPS request. `{{name}}` in the URL is the argument of that name, percent-encoded as one segment."""

    kind: Literal["http"]
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    url: Annotated[Template, Field(description="https://, with a fixed host; {{argument}} after it.")]
    headers: Annotated[
        dict[str, TextOrSecret], Field(description="Sent with each call; secrets by reference, to this origin only.")
    ] = {}
    query: Annotated[tuple[str, ...], Field(description="Arguments that go into the query.")] = ()
    result_schema: Annotated[dict[str, Any] | None, Field(description="JSON Schema that the answer must satisfy.")] = (
        None
    )
    allow_networks: Annotated[
        tuple[IPvAnyNetwork, ...],
        Field(description="Non-public networks that it may connect to; none without it. http:// is allowed there."),
    ] = ()

    def effects(self) -> Effect:
        """Say how often it may run."""
        return self.effect or ("safe" if self.method == "GET" else "once")


class McpTool(_Tool):
    """A tool of an MCP server. Description and parameters are the pin: the server's own must hash to the same."""

    kind: Literal["mcp"]
    server: Name
    tool: Annotated[str | None, Field(description="Its name there; the catalog's name when absent.")] = None

    _server_version: str = PrivateAttr("")

    def bind(self, server: "McpServer") -> None:
        """Make the server's own definition part of this one's version; done once, before the version is asked for."""
        self._server_version = server.version()

    @cached_property
    def _version(self) -> str:
        return canonical.sha256(_hash(self, _NOT_THE_TOOL) + self._server_version)


class PythonTool(_Tool):
    """A function that the operator installed, run in a subprocess with limits."""

    kind: Literal["python"]
    entry_point: Annotated[Name, Field(description="Name within the entry-point group kitemesh.tools.")]
    memory_mb: Annotated[int, Field(ge=16, le=16_384)] = 256
    cpu_s: Seconds = 10.0


Tool = Annotated[HttpTool | McpTool | PythonTool, Field(discriminator="kind")]


class McpServer(_Part):
    """An MCP server: streamable HTTP by URL, or stdio by a command of the operator's."""

    url: Annotated[str | None, Field(pattern=r"^https?://\S+$")] = None
    headers: dict[str, TextOrSecret] = {}
    command: Annotated[tuple[str, ...], Field(description="Program and arguments; no shell.")] = ()
    environment: dict[str, TextOrSecret] = {}
    working_directory: Path | None = None
    connect_timeout_s: Seconds = 10.0
    allow_networks: tuple[IPvAnyNetwork, ...] = ()

    @model_validator(mode="after")
    def _one_way(self) -> "McpServer":
        if (self.url is None) == (not self.command):
            raise ValueError("needs exactly one of url, command")
        return self

    def version(self) -> str:
        """Return the SHA-256 of where it is and what it is told."""
        return self._version

    @cached_property
    def _version(self) -> str:
        return _hash(self, _NOT_THE_SERVER)


class Condition(_Part):
    """A comparison with one argument of the call.

    An argument that is absent matches nothing; one of another type than `value` matches `ne` and `not_in` only.
    """

    argument: Annotated[str, Field(min_length=1, max_length=200, description="Dotted path into the arguments.")]
    op: Literal["eq", "ne", "lt", "le", "gt", "ge", "in", "not_in", "matches"]
    value: _Scalar | tuple[_Scalar, ...]

    @model_validator(mode="after")
    def _fits(self) -> "Condition":
        if isinstance(self.value, tuple) != (self.op in _LISTED):
            raise ValueError(f"value of {self.op} must be {'a list' if self.op in _LISTED else 'a single value'}")
        if self.value == ():
            raise ValueError(f"value of {self.op} must have at least 1 entry")
        if self.op in _ORDERED and isinstance(self.value, bool):
            raise ValueError(f"value of {self.op} must be a number or text")
        if self.op == "matches" and not isinstance(self.value, str):
            raise ValueError("value of matches must be text")
        return self


class Policy(_Part):
    """One rule; the first that matches decides. A call that no rule matches is allowed."""

    tools: Annotated[tuple[Pattern, ...], Field(min_length=1, description="Names, with * and ? as wildcards.")] = ("*",)
    agents: Annotated[tuple[Pattern, ...], Field(min_length=1)] = ("*",)
    tenants: Annotated[tuple[Pattern, ...], Field(min_length=1)] = ("*",)
    when: Annotated[tuple[Condition, ...], Field(description="All must hold.")] = ()
    then: Literal["allow", "hold", "deny"]
    reason: Annotated[str, Field(max_length=500, description="Told to the model when denied.")] = ""
    expires_after_s: Annotated[
        float | None, Field(gt=0, le=30 * 86_400, description="Of a hold; 10 min classic, 24 h durable without it.")
    ] = None
    scope: Annotated[Literal["chat", "approve", "admin"], Field(description="What a key needs to decide.")] = "approve"
    decide: Annotated[Literal["each", "batch"], Field(description="batch: one answer must decide every call.")] = "each"


class Limits(_Part):
    """What one turn of an agent may use."""

    steps: Annotated[int, Field(ge=1, le=25, description="Model calls; in the last one no tools are offered.")] = 25
    calls: Annotated[int, Field(ge=0, le=50)] = 50
    parallel: Annotated[int, Field(ge=1, le=32, description="Calls of one step.")] = 32
    tokens: Annotated[int | None, Field(ge=1, description="Of all steps; none is begun beyond it.")] = None


WebhookEvent = Literal["approval.requested", "approval.decided", "approval.expired", "turn.finished", "turn.failed"]


class Webhook(_Part):
    """Where to tell of events: a keyed tool call on a pool of its own, signed, retried for a day."""

    url: Annotated[str, Field(pattern=r"^https?://\S+$")]
    events: Annotated[tuple[WebhookEvent, ...], Field(min_length=1)]
    secret: Annotated[Secret, Field(description="Key of the HMAC-SHA256 in the header x-kitemesh-signature.")]
    tenants: Annotated[tuple[Pattern, ...], Field(min_length=1)] = ("*",)
    pool: Name = "webhooks"
    timeout_s: Seconds = 10.0
    allow_networks: tuple[IPvAnyNetwork, ...] = ()


def _hash(part: BaseModel, left_out: frozenset[str]) -> str:
    content = part.model_dump(mode="json", exclude=set(left_out))
    return canonical.sha256(msgspec.json.encode(content, order="sorted").decode())
