"""Bytes to messages and back: one encoder, one decoder for each union of kinds.

JSON, so that a subject can be read by eye. Whatever does not decode is a `ContractViolation`.
"""

from typing import Final, TypeVar

import msgspec

from kitemesh_contracts.commands import CancelTurn, Generate, Parcel, RunCalls, StartTurn
from kitemesh_contracts.deltas import Frame, TurnEnded
from kitemesh_contracts.errors import ContractViolation
from kitemesh_contracts.events import CallsReturned, StepCancelled, StepFailed, StepGenerated, StepReleased

T = TypeVar("T")

encode: Final = msgspec.json.Encoder().encode

START: Final = msgspec.json.Decoder(StartTurn | Parcel)
GENERATE: Final = msgspec.json.Decoder(Generate | Parcel)
RUN_CALLS: Final = msgspec.json.Decoder(RunCalls | Parcel)
CANCEL: Final = msgspec.json.Decoder(CancelTurn)
EVENT: Final = msgspec.json.Decoder(
    StepGenerated | StepFailed | StepCancelled | StepReleased | CallsReturned | Parcel,
)
RELAYED: Final = msgspec.json.Decoder(Frame | TurnEnded | Parcel)


def decode(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """Decode one message.

    Raises:
        ContractViolation: The bytes are not a message of that union. The reason names a place, never the content.

    """
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ContractViolation(f"{len(data)} bytes are not a known message: {exc}") from exc
