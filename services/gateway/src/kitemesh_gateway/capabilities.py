"""What a request needs of its model, against what the catalog says that models can do. Pure.

A model that the catalog says nothing of can do everything; its provider has the last word then.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from kitemesh_contracts.commands import Route
from kitemesh_contracts.content import FilePart, UserMessage, files_of
from kitemesh_gateway.dialects.base import Mistake, TurnRequest
from kitemesh_gateway.dialects.files import is_image, is_text
from kitemesh_runtime.catalog import Capability, Model

_NO_REASONING: Final = frozenset({None, "none"})


class Need(NamedTuple):
    """Something that a model must be able to do.

    Attributes:
        field: That asks for it.

    """

    can: Capability
    field: str


def problems(request: TurnRequest, models: Sequence[Model]) -> list[Mistake]:
    """Return what none of the models can do.

    Args:
        request: Whose field each mistake names.
        models: Of which any one may answer.

    """
    if any(model.can is None for model in models):
        return []
    needs = tuple(_needs(request))
    if any(_can_all(model, needs) for model in models):
        return []
    missing = [need for need in needs if not any(_can(model, need) for model in models)]
    what = "none of the models can do that" if len(models) > 1 else "the model cannot do that"
    mistakes = [Mistake(need.field, what) for need in missing]
    # Each can be done by one of them, and no one of them does it all.
    return mistakes or [Mistake(need.field, "no model can do that beside the rest") for need in needs]


def narrow(route: Route, request: TurnRequest, models: Mapping[str, Model]) -> Route:
    """Leave those of a route's models that can do all that a request needs; all of them when none can.

    A group's models are in one pool, so the route's stays.
    """
    if all(models[name].can is None for name in route.models):
        return route
    needs = tuple(_needs(request))
    able = tuple(name for name in route.models if _can_all(models[name], needs))
    return replace(route, models=able) if able else route


def _can_all(model: Model, needs: Sequence[Need]) -> bool:
    return all(_can(model, need) for need in needs)


def _can(model: Model, need: Need) -> bool:
    return model.can is None or need.can in model.can


def _needs(request: TurnRequest) -> Iterator[Need]:
    """Yield what a request needs, each once, in the order of the fields."""
    files = [part for message in request.messages if isinstance(message, UserMessage) for part in files_of(message)]
    if any(is_image(part.media_type) for part in files):
        yield Need("images", "messages")
    if any(_is_document(part) for part in files):
        yield Need("files", "messages")
    sampling = request.sampling
    if sampling.choices > 1:
        yield Need("choices", "n")
    if sampling.logprobs:
        yield Need("logprobs", "logprobs")
    if sampling.response_format is not None:
        yield Need(sampling.response_format.kind, "response_format")
    if request.tools:
        yield Need("tools", "tools")
    if sampling.reasoning_effort not in _NO_REASONING:
        yield Need("reasoning", "reasoning_effort")


def _is_document(part: FilePart) -> bool:
    """Tell whether a model has to read a file as it is: a text is put into words for any of them."""
    return not (is_image(part.media_type) or is_text(part.media_type))
