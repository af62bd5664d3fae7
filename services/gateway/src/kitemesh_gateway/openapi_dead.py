"""The routes of dead letters in `/openapi.json`. Pure."""

from collections.abc import Sequence
from typing import Any, Final

from kitemesh_contracts.errors import ErrorCode
from kitemesh_gateway.dialects.dead_answers import Dropped, LetterDetail, LetterPage, Requeued
from kitemesh_gateway.openapi_bodies import Described, Schema
from kitemesh_gateway.openapi_codes import SCOPED_CODES
from kitemesh_gateway.openapi_parts import ID_SCHEMA, LIMIT, Family, id_of, lookup, query
from kitemesh_gateway.openapi_refusals import PROBLEMS

_NEEDS: Final = "Needs the scope `operator`."
_NUMBER: Final = {"type": "string", "pattern": "^[1-9][0-9]{0,17}$"}
_LETTER: Final = id_of("The letter.")


def _operation(
    name: str, summary: str, answer: Described, codes: Sequence[ErrorCode], about: str, **more: Any
) -> Schema:
    described = lookup(name, summary, answer, (*SCOPED_CODES, ErrorCode.BUS_DOWN, *codes), refusal=PROBLEMS)
    return {**described, "description": f"{about} {_NEEDS}", **more}


FAMILY: Final = Family(
    "Dead letters",
    "Messages that nobody could handle, of all tenants.",
    {
        "/v1/dead": {
            "get": _operation(
                "listDeadLetters",
                "List the messages that were given up",
                LetterPage,
                (ErrorCode.REQUEST_INVALID,),
                "Newest first, of the last 14 days, without their content.",
                parameters=[
                    query("stream", "Only those of messages that were in it, such as `KM_MODEL`.", ID_SCHEMA),
                    query("cursor", "`next_cursor` of the page before.", _NUMBER),
                    LIMIT,
                ],
            ),
        },
        "/v1/dead/{id}": {
            "get": _operation(
                "getDeadLetter",
                "Show a message that was given up",
                LetterDetail,
                (ErrorCode.DEAD_UNKNOWN,),
                "With how its turn stands, and what the ledger says of the turn's calls.",
                parameters=_LETTER,
            ),
            "delete": _operation(
                "dropDeadLetter",
                "Drop a message that was given up",
                Dropped,
                (ErrorCode.DEAD_UNKNOWN,),
                "Its turn stays as it is.",
                parameters=_LETTER,
            ),
        },
        "/v1/dead/{id}/requeue": {
            "post": _operation(
                "requeueDeadLetter",
                "Have a turn that was given up go on",
                Requeued,
                (ErrorCode.DEAD_UNKNOWN, ErrorCode.DEAD_REFUSED),
                "It goes on from where it stood, with its whole time budget: what it did is not done again. A call "
                "that had finished keeps its result, one that was under way is treated as after a crash. Of many "
                "requests at once one succeeds.",
                parameters=_LETTER,
            ),
        },
    },
)
