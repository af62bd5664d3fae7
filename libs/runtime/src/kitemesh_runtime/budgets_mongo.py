"""Budgets in MongoDB: two calls for any number of subjects, one for one; levels are filled by the server's clock.

Acknowledged by the primary alone: a failover that loses the last instants gives back what was leased in them, which
is less than one burst; waiting for a majority would cost every request of a small limit a journal write.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from kitemesh_contracts.errors import Bug, Conflict
from kitemesh_contracts.ids import is_id
from kitemesh_runtime.budget_updates_mongo import SEATS, update
from kitemesh_runtime.budgets import Ask, Grant, RateGrant, SlotsGrant
from kitemesh_runtime.documents_mongo import Document
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.errors_mongo import translate_code

COLLECTION: Final = "budgets"
KEPT_S: Final = 3600
GROUP_MAX: Final = 500
"""A subject's update is about 2 KiB; the server takes 16 MiB."""

_PRIMARY: Final[Document] = {"w": 1}


class MongoBudgets:
    """The `Budgets` port on MongoDB."""

    def __init__(self, database: Database) -> None:
        self._database: Final = database
        self._collection: Final = database.collection(COLLECTION)

    async def exchange(self, gateway: str, asks: Sequence[Ask]) -> Mapping[str, Grant]:
        """Answer questions, each subject's atomically, and return the grants by subject."""
        if not is_id(gateway):
            raise Bug("a gateway's name is not an id, so it cannot name a field")
        if len(asks) == 1:
            return await self._exchange_one(gateway, asks[0])
        grants: dict[str, Grant] = {}
        for start in range(0, len(asks), GROUP_MAX):
            grants |= await self._exchange_group(gateway, asks[start : start + GROUP_MAX])
        return grants

    async def _exchange_one(self, gateway: str, ask: Ask) -> dict[str, Grant]:
        stage, constants = update(gateway, ask)
        # Through the driver's own methods it would be retried, and wait for a majority; so in the group.
        command = {
            "findAndModify": COLLECTION,
            "query": {"_id": ask.subject},
            "update": [stage],
            "let": constants,
            "upsert": True,
            "new": True,
            "fields": {f"{SEATS}.{gateway}": 1},
            "writeConcern": _PRIMARY,
        }
        try:
            told = await self._database.command(command)
        except Conflict:
            # Two gateways that are the first to ask about a subject may meet; the loser asks again.
            return {}
        return _grants(gateway, [ask], [told["value"]])

    async def _exchange_group(self, gateway: str, asks: Sequence[Ask]) -> dict[str, Grant]:
        updates = []
        for ask in asks:
            stage, constants = update(gateway, ask)
            updates.append({"q": {"_id": ask.subject}, "u": [stage], "c": constants, "upsert": True})
        told = await self._database.command(
            {"update": COLLECTION, "updates": updates, "ordered": False, "writeConcern": _PRIMARY}
        )
        for failed in told.get("writeErrors", ()):
            error = translate_code(failed.get("code"))
            if not isinstance(error, Conflict):
                raise error
        names = [ask.subject for ask in asks]
        found = self._collection.find({"_id": {"$in": names}}, {f"{SEATS}.{gateway}": 1})
        return _grants(gateway, asks, await self._database.run(found.to_list(None)))


def _grants(gateway: str, asks: Sequence[Ask], found: Sequence[Document]) -> dict[str, Grant]:
    seats = {document["_id"]: document.get(SEATS, {}).get(gateway, {}) for document in found}
    return {
        ask.subject: _grant(ask, seats[ask.subject]) for ask in asks if seats.get(ask.subject, {}).get("seq") == ask.seq
    }


def _grant(ask: Ask, seat: Document) -> Grant:
    return Grant(
        requests=None if ask.requests is None else RateGrant(granted=seat["requests"], level=seat["requests_left"]),
        tokens=None if ask.tokens is None else RateGrant(granted=seat["tokens"], level=seat["tokens_left"]),
        slots=None if ask.slots is None else SlotsGrant(held=seat["held"], others=seat["others"]),
    )
