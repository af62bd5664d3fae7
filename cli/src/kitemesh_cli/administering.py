"""How verbs change keys and tenants: on the store itself, noted in the audit as done from here, then told to all."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from kitemesh_cli.connections import open_cli_bus, open_cli_stores
from kitemesh_cli.failures import Failed
from kitemesh_cli.settings import KeysSettings
from kitemesh_contracts.errors import Unavailable
from kitemesh_runtime.administration import BY_CLI, Actor, Administration
from kitemesh_runtime.clock import SystemClock
from kitemesh_runtime.stores import Stores

ACTOR: Final = Actor(by=BY_CLI)
LEARNT_S: Final = 5
"""Within so many seconds a gateway knows of a change, when no broadcast reaches it."""


class Desk(NamedTuple):
    """What a verb works with.

    Attributes:
        told: Subjects on which it is to be broadcast that something changed.

    """

    stores: Stores
    administration: Administration
    told: list[str]


@asynccontextmanager
async def open_desk(settings: KeysSettings) -> AsyncIterator[Desk]:
    """Connect to the store.

    Raises:
        Failed: It does not answer.

    """
    told: list[str] = []
    async with open_cli_stores(settings) as stores:
        administration = Administration(
            stores.keys,
            stores.tenants,
            stores.audit,
            pepper=pepper_of(settings, must=False),
            clock=SystemClock(),
            tell=told.append,
        )
        yield Desk(stores, administration, told)


async def broadcast(settings: KeysSettings, told: Sequence[str]) -> bool:
    """Tell every gateway at once; `False` where NATS does not answer."""
    try:
        async with open_cli_bus(settings) as bus:
            for subject in told:
                bus.publish(subject, b"")
            await bus.barrier()
    except (Failed, Unavailable):
        # The store has the truth and is asked often; the broadcast only makes it prompt.
        return False
    return True


def pepper_of(settings: KeysSettings, *, must: bool = True) -> bytes:
    """Return the secret under which keys are digested.

    Raises:
        Failed: It is not set, and `must` be.

    """
    pepper = settings.key_pepper.get_secret_value().encode()
    if must and not pepper:
        raise Failed("KITEMESH_KEY_PEPPER is not set; it must be the gateways', or they will not know the key")
    return pepper


def how_told(is_told: bool) -> str:
    """Say how the gateways learn of a change."""
    return "every gateway has been told" if is_told else f"NATS does not answer; gateways learn it within {LEARNT_S} s"
