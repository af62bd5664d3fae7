"""The carried turn store: a classic turn's state travels in the `carry` bytes of its messages.

Load reads the bytes that a worker returned untouched; save hands out the bytes for the next command. Nothing is kept
here, so any replica may take any event.
"""

from typing import Final

import msgspec

from kitemesh_contracts.codec import decode, encode
from kitemesh_orchestrator.states import Accepted, Calling, Ended, Generating, State

STATE: Final[msgspec.json.Decoder[State]] = msgspec.json.Decoder(Accepted | Generating | Calling | Ended)


def load(carry: msgspec.Raw) -> State:
    """Read the state that a message carries.

    Raises:
        ContractViolation: It carries none.

    """
    return decode(STATE, bytes(carry))


def save(state: State) -> msgspec.Raw:
    """Return the state as the next command carries it."""
    return msgspec.Raw(encode(state))


def is_empty(carry: msgspec.Raw) -> bool:
    """Tell whether a message carries no state, because its turn is in the store."""
    return bytes(carry) == b"null"
