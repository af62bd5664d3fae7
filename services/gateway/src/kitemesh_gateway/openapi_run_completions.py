"""The run API's chat completions in `/openapi.json`. Pure."""

from http import HTTPStatus
from typing import Final

from kitemesh_gateway.dialects.base import JSON
from kitemesh_gateway.dialects.run_completions_errors import FailedOut, InvalidOut, MissingOut
from kitemesh_gateway.dialects.run_completions_models import RunCompletionRequest
from kitemesh_gateway.openapi_codes import MESSAGE_CODES
from kitemesh_gateway.openapi_completions import ANSWERS, STREAMED
from kitemesh_gateway.openapi_parts import Family, run
from kitemesh_gateway.openapi_refusals import RUN_PROBLEMS

_REFUSAL: Final = RUN_PROBLEMS._replace(
    others={
        HTTPStatus.BAD_REQUEST: (JSON, InvalidOut),
        HTTPStatus.NOT_FOUND: (JSON, MissingOut),
        HTTPStatus.INTERNAL_SERVER_ERROR: (JSON, FailedOut),
    },
)

FAMILY: Final = Family(
    "Run API: completions",
    "Chat completions in conversations whose ids, and whose messages' ids, are the client's own.",
    {
        "/run/v1/chat/completions": {
            "post": run(
                "createRunCompletion",
                "Run a chat turn",
                "The key's default agent answers, by the model that is named. Unless `stream` is `false` the answer is "
                f"server-sent events. {STREAMED} A message whose id was used before is refused and changes nothing.",
                RunCompletionRequest,
                answers=ANSWERS,
                codes=MESSAGE_CODES,
                refusal=_REFUSAL,
            ),
        },
    },
)
