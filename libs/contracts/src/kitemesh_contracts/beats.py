"""Signs of life: every replica of every service says every 2 s that it is there."""

from typing import Final

from msgspec import Struct

BEAT_EVERY_S: Final = 2.0

GATEWAY_SILENCE_S: Final = 10.0
"""A classic job whose gateway was silent for this long has no client any more and is cancelled."""


class Beat(Struct, frozen=True, kw_only=True, tag="beat"):
    """One sign of life.

    Attributes:
        load: Work in hand: open turns at a gateway, used slots at a worker.

    """

    service: str
    replica: str
    version: str
    load: int
