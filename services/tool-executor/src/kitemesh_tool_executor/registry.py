"""Which tool bears a name now: its version, its rules and the means to run it, made anew when the catalog changes.

It knows no kind by name but webhooks, which have a prefix among the tools.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

import structlog

from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.catalog_tool_references import RESERVED
from kitemesh_runtime.catalog_tools import Webhook
from kitemesh_runtime.ledger import Effect
from kitemesh_runtime.schemas import Schema, SchemaRefused, compiled
from kitemesh_tool_executor.tool import Kind, Tool

log: Final = structlog.get_logger()


class Entry(NamedTuple):
    """A tool and its rules.

    Attributes:
        version: What a call must have been judged under; `None` for a webhook, which nobody judges.
        persistent: Whoever ordered the call orders it again when it failed, under the same id: a webhook.

    """

    kind: str
    version: str | None
    effect: Effect
    timeout_s: float
    max_result_bytes: int
    schema: Schema
    tool: Tool
    persistent: bool = False


class Definition(Protocol):
    """What is asked of a definition."""

    @property
    def kind(self) -> str:
        """Name of its kind."""

    @property
    def parameters(self) -> dict[str, Any]:
        """JSON Schema of the arguments."""

    @property
    def timeout_s(self) -> float:
        """Longest time of a call."""

    @property
    def max_result_bytes(self) -> int:
        """Of the text."""

    def effects(self) -> Effect:
        """Say how often it may run."""

    def version(self) -> str:
        """Return the SHA-256 of what decides what a call does."""


class Source(Protocol):
    """Where the catalog is found."""

    @property
    def current(self) -> Catalog:
        """The catalog that serves now."""


class Registry:
    """The tools of the catalog that serves now.

    Args:
        source: Where the catalog is found.
        kinds: By the name that a definition gives its kind.
        define_webhook: Returns the definition that a webhook stands for.

    """

    def __init__(
        self, source: Source, kinds: Mapping[str, Kind], define_webhook: Callable[[Webhook], Definition]
    ) -> None:
        self._source: Final = source
        self._kinds: Final = kinds
        self._define_webhook: Final = define_webhook
        self._catalog: Catalog | None = None
        self._entries: dict[str, Entry | None] = {}

    def find(self, name: str) -> Entry | None:
        """Return the tool, or `None` when there is none that can be run here."""
        catalog = self._source.current
        if catalog is not self._catalog:
            self._catalog = catalog
            self._entries = {}
        if name in self._entries:
            return self._entries[name]
        definition: Definition | None = catalog.tools.get(name)
        webhook = catalog.webhooks.get(name.removeprefix(RESERVED)) if name.startswith(RESERVED) else None
        if webhook is not None:
            definition = self._define_webhook(webhook)
        if definition is None:
            # A model may write any name: those that are none are not remembered.
            return None
        entry = self._entries[name] = self._build(name, definition, catalog, persistent=webhook is not None)
        return entry

    def _build(self, name: str, definition: Definition, catalog: Catalog, *, persistent: bool) -> Entry | None:
        kind = self._kinds.get(definition.kind)
        if kind is None:
            log.error("tool.refused", tool=name, reason=f"this executor has no kind {definition.kind!r}")
            return None
        try:
            schema = compiled(definition.parameters)
        except SchemaRefused as exc:
            log.error("tool.refused", tool=name, reason=str(exc))  # noqa: TRY400  the reason says it all
            return None
        return Entry(
            kind=definition.kind,
            version=None if persistent else definition.version(),
            effect=definition.effects(),
            timeout_s=definition.timeout_s,
            max_result_bytes=definition.max_result_bytes,
            schema=schema,
            tool=kind.tool(name, catalog),
            persistent=persistent,
        )
