"""The route of `kernel2` in `/openapi.json`. Pure."""

from typing import Final

from kitemesh_gateway.dialects.base import JSON
from kitemesh_gateway.dialects.kernel2_answers import KernelChunk, KernelCompletion, KernelRefusal
from kitemesh_gateway.dialects.kernel2_models import KernelRequest
from kitemesh_gateway.openapi_bodies import DONE, content, events
from kitemesh_gateway.openapi_codes import TURN_CODES
from kitemesh_gateway.openapi_parts import Family, run
from kitemesh_gateway.openapi_refusals import Refusal
from kitemesh_gateway.preparing import ROLE_HEADER

_CODES: Final = tuple(code for code in TURN_CODES if not code.startswith("conversation."))

FAMILY: Final = Family(
    "Kernel",
    "Chat turns whose whole history is in the request, with roles and a knowledge base.",
    {
        "/api/kernel2/chat": {
            "post": run(
                "createKernelChat",
                "Run a chat turn",
                "Unless `stream` is `false` the answer is server-sent events. Each event of a stream has an `id` line "
                "and one `data` line, every one but the last is a chunk with one choice, and `[DONE]` is the last one. "
                "An answer that could not be finished says so under `error` of its last chunk. Calls that a person "
                "would have to approve are denied.",
                KernelRequest,
                answers={**content(JSON, KernelCompletion), **events(KernelChunk, last=DONE)},
                codes=_CODES,
                refusal=Refusal(JSON, KernelRefusal),
                headers={ROLE_HEADER: "`unknown`: there is no such role, so the request's own words were used."},
            ),
        },
    },
)
