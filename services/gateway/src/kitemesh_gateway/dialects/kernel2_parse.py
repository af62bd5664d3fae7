"""From the body of `POST /api/kernel2/chat` to a canonical request. Pure.

What it has in common with a chat completion is checked and converted there.
"""

from msgspec.structs import replace
from pydantic import ValidationError

from kitemesh_gateway.dialects.base import Mistake, Mistakes, TurnRequest
from kitemesh_gateway.dialects.completions_parse import turn_request
from kitemesh_gateway.dialects.completions_rules import across
from kitemesh_gateway.dialects.kernel2_models import MAX_TOKENS, TEMPERATURE, KernelMetadataIn, KernelRequest
from kitemesh_gateway.dialects.mistakes import mistakes_of


def parse(body: object) -> TurnRequest:
    """Validate a decoded body.

    Raises:
        Mistakes: With everything that is wrong.

    """
    try:
        request = KernelRequest.model_validate(body)
    except ValidationError as exc:
        raise Mistakes([*mistakes_of(exc), *_between(body)]) from exc
    mistakes = _between(body)
    if mistakes:
        raise Mistakes(mistakes)
    return _turn_request(request)


def _turn_request(request: KernelRequest) -> TurnRequest:
    metadata = request.metadata or KernelMetadataIn()
    wanted_tokens = request.max_completion_tokens or request.max_tokens
    completed = {
        "metadata": None,
        "stream": request.stream is not False,
        "temperature": TEMPERATURE if request.temperature is None else request.temperature,
        "max_tokens": MAX_TOKENS if wanted_tokens is None else wanted_tokens,
    }
    return replace(
        turn_request(request.model_copy(update=completed)),
        role=metadata.role_id,
        retrieval=metadata.enable_l0_retrieval or False,
        denies_holds=True,
    )


def _between(body: object) -> list[Mistake]:
    """Find what is wrong between fields; none of the metadata has a meaning there."""
    if not isinstance(body, dict):
        return []
    return across({**body, "metadata": None, "stream": body.get("stream") is not False})
