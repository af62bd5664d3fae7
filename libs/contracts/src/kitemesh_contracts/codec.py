"""Bytes to messages and back: one encoder, one decoder for each union of kinds.

JSON, so that a subject can be read by eye. Whatever does not decode is a `ContractViolation`.
"""

from typing import Final, TypeVar

import msgspec

from kitemesh_contracts.beats import Beat
from kitemesh_contracts.commands import ApplyHold, CancelTurn, Generate, Parcel, RunCalls, StartTurn
from kitemesh_contracts.deltas import Relayed
from kitemesh_contracts.errors import ContractViolation
from kitemesh_contracts.events import Event
from kitemesh_contracts.news import NewsItem

T = TypeVar("T")

encode: Final = msgspec.json.Encoder().encode

START: Final[msgspec.json.Decoder[StartTurn | Parcel]] = msgspec.json.Decoder(StartTurn | Parcel)
GENERATE: Final[msgspec.json.Decoder[Generate | Parcel]] = msgspec.json.Decoder(Generate | Parcel)
RUN_CALLS: Final[msgspec.json.Decoder[RunCalls | Parcel]] = msgspec.json.Decoder(RunCalls | Parcel)
JOB: Final[msgspec.json.Decoder[Generate | RunCalls | Parcel]] = msgspec.json.Decoder(Generate | RunCalls | Parcel)
CONTROL: Final[msgspec.json.Decoder[StartTurn | ApplyHold | CancelTurn | Parcel]] = msgspec.json.Decoder(
    StartTurn | ApplyHold | CancelTurn | Parcel
)
DUE: Final[msgspec.json.Decoder[ApplyHold | RunCalls]] = msgspec.json.Decoder(ApplyHold | RunCalls)
CANCEL: Final[msgspec.json.Decoder[CancelTurn]] = msgspec.json.Decoder(CancelTurn)
EVENT: Final[msgspec.json.Decoder[Event | Parcel]] = msgspec.json.Decoder(Event | Parcel)
BEAT: Final[msgspec.json.Decoder[Beat]] = msgspec.json.Decoder(Beat)
RELAYED: Final[msgspec.json.Decoder[Relayed | Parcel]] = msgspec.json.Decoder(Relayed | Parcel)
NEWS: Final[msgspec.json.Decoder[NewsItem]] = msgspec.json.Decoder(NewsItem)


def decode(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """Decode one message.

    Raises:
        ContractViolation: The bytes are not a message of that union. The reason names a place, never the content.

    """
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ContractViolation(f"{len(data)} bytes are not a known message: {exc}") from exc
