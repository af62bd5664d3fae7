"""Which provider answers for which model, by the catalog that serves now, and how each upstream is."""

import random
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from kitemesh_contracts.beats import Health
from kitemesh_model_runner.breaker import State
from kitemesh_model_runner.circuit import Circuit
from kitemesh_model_runner.provider import Provider
from kitemesh_runtime import catalog
from kitemesh_runtime.catalog import Capability, OpenAIProvider
from kitemesh_runtime.catalog_file import CatalogHandle

Build = Callable[[str, catalog.Provider], Provider]
"""Makes an adapter from the name and the text that a provider has in the catalog."""


_BADNESS: Final[tuple[State, ...]] = ("closed", "half_open", "open")


class Target(NamedTuple):
    """Where a model call may go.

    Attributes:
        model: Catalog id.
        upstream: The provider's own name for it.
        circuit: How the upstream is; all models that are the same one there share it.
        continues: It may be asked to go on with an answer that broke off.
        can: What may be asked of it; `None`: everything.
        context_tokens: How much prompt and answer together may have; `None`: not known.

    """

    model: str
    upstream: str
    provider: Provider
    circuit: Circuit
    continues: bool = False
    can: tuple[Capability, ...] | None = None
    context_tokens: int | None = None


def kind_of(targets: Sequence[Target], model: str) -> str:
    """Return the kind of a model's provider; the first one's for a model that is none of theirs."""
    kinds = [each.provider.kind for each in targets if each.model == model] or [each.provider.kind for each in targets]
    return kinds[0] if kinds else "none"


class Routing:
    """The providers of the current catalog, made anew with each; what is known of an upstream outlives them.

    Args:
        chance: Uniform in [0, 1).

    """

    def __init__(self, handle: CatalogHandle, build: Build, *, chance: Callable[[], float] = random.random) -> None:
        self._build: Final = build
        self._chance: Final = chance
        self._targets: dict[str, Target] = {}
        self._configs: dict[str, catalog.Provider] = {}
        self._take(handle.current)
        handle.on_change(self._take)

    def targets(self, models: Sequence[str]) -> list[Target]:
        """List where to go, in the order of `models`; what the catalog no longer has is left out."""
        known = self._targets
        return [known[model] for model in models if model in known]

    def health(self, now_s: float) -> dict[str, Health]:
        """Return which models' upstreams are not well, by catalog id."""
        found: dict[str, Health] = {}
        for target in self._targets.values():
            state = target.circuit.state(now_s)
            if state == "open":
                found[target.model] = "down"
            elif state == "half_open" or target.circuit.obstacle(now_s) is not None:
                found[target.model] = "degraded"
        return found

    def states(self, now_s: float) -> dict[str, int]:
        """Return how each provider's worst upstream is: 0 is well, 1 half open, 2 open."""
        found = dict.fromkeys(self._configs, 0)
        for target in self._targets.values():
            name = target.circuit.provider
            found[name] = max(found[name], _BADNESS.index(target.circuit.state(now_s)))
        return found

    def _take(self, current: catalog.Catalog) -> None:
        known = {(each.circuit.provider, each.upstream): each.circuit for each in self._targets.values()}
        # What was learned of a provider that is another now, at another address perhaps, is of no use.
        circuits = {key: each for key, each in known.items() if self._configs[key[0]] == current.providers.get(key[0])}
        providers = {name: self._build(name, config) for name, config in current.providers.items()}
        targets: dict[str, Target] = {}
        for name, model in current.models.items():
            key = (model.provider, model.upstream or name)
            if key not in circuits:
                # One inside this process fails only when it is told to.
                is_remote = isinstance(current.providers[model.provider], OpenAIProvider)
                circuits[key] = Circuit(*key, self._chance if is_remote else None)
            targets[name] = Target(
                name,
                key[1],
                providers[model.provider],
                circuits[key],
                current.continues(name),
                model.can,
                model.context_tokens,
            )
        self._targets = targets
        self._configs = dict(current.providers)
