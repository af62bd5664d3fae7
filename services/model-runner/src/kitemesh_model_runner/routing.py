"""Which provider answers for which model, by the catalog that serves now."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from kitemesh_model_runner.provider import Provider
from kitemesh_runtime import catalog
from kitemesh_runtime.catalog import Capability
from kitemesh_runtime.catalog_file import CatalogHandle

Build = Callable[[str, catalog.Provider], Provider]
"""Makes an adapter from the name and the text that a provider has in the catalog."""


class Target(NamedTuple):
    """Where a model call may go.

    Attributes:
        model: Catalog id.
        upstream: The provider's own name for it.
        continues: It may be asked to go on with an answer that broke off.
        can: What may be asked of it; `None`: everything.

    """

    model: str
    upstream: str
    provider: Provider
    continues: bool = False
    can: tuple[Capability, ...] | None = None


class Routing:
    """The providers of the current catalog; made anew with each."""

    def __init__(self, handle: CatalogHandle, build: Build) -> None:
        self._build: Final = build
        self._take(handle.current)
        handle.on_change(self._take)

    def targets(self, models: Sequence[str]) -> list[Target]:
        """List where to go, in the order of `models`; what the catalog no longer has is left out."""
        known = self._catalog.models
        return [
            Target(
                model,
                known[model].upstream or model,
                self._providers[known[model].provider],
                self._catalog.continues(model),
                known[model].can,
            )
            for model in models
            if model in known
        ]

    def _take(self, current: catalog.Catalog) -> None:
        self._catalog = current
        self._providers = {name: self._build(name, config) for name, config in current.providers.items()}
