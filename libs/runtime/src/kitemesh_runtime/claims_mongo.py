"""Claims in MongoDB: the insert of `tenant:kind:value` decides, the server's clock says when a claim runs out.

A claim is kept as long as turns are, those of keys for a day: `kept_until` is the date of its end.
"""

from typing import Any, Final

from pymongo import ReturnDocument

from kitemesh_contracts.errors import Bug
from kitemesh_contracts.ids import is_id
from kitemesh_runtime.claims import KEY_CLAIMS, Claim
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.live_turns import LiveTurns
from kitemesh_runtime.retention import Days, default_days
from kitemesh_runtime.retention_mongo import KEPT, kept_for

COLLECTION: Final = "claims"
CLAIM_MS: Final = 30_000
KEY_CLAIM_MS: Final = 4_000
"""Longer than whoever claims a key tries to store its turn."""


class MongoClaims:
    """The `Claims` port on MongoDB.

    Args:
        database: Where the claims are.
        turns: Tells whether the turn of a claim that ran out is stored, live or ended, or was erased: its claim stays.
        days: How long turns are kept.

    """

    def __init__(self, database: Database, turns: LiveTurns, days: Days = default_days) -> None:
        self._run = database.run
        self._collection = database.collection(COLLECTION)
        self._turns = turns
        self._days = days

    async def claim(self, tenant: str, kind: str, value: str, turn: str, *, fingerprint: str = "") -> Claim:
        """Insert the claim, or say whose it is; a claim that ran out and whose turn is not stored is taken over.

        A take-over keeps the turn id that the claim names, `won` with that id, and its fingerprint; what is kept for a
        day is so from then on.
        """
        days = 1 if kind.startswith(KEY_CLAIMS) else self._days(tenant, "turns")
        name, kept = _name(tenant, kind, value), {"until": _until(kind), KEPT: kept_for(days)}
        found: dict[str, Any] | None = await self._run(
            self._collection.find_one_and_update(
                {"_id": name},
                _insert(tenant, turn, fingerprint, kept),
                upsert=True,
                return_document=ReturnDocument.BEFORE,
            ),
        )
        if found is None:
            return Claim(won=True, turn=turn, fingerprint=fingerprint)
        owner: str = found["turn"]
        answer = Claim(won=owner == turn, turn=owner, fingerprint=found["fingerprint"])
        if answer.won or found["settled"] or not await self._ran_out(found):
            return answer
        if await self._turns.knows(tenant, owner):
            await self.settle(tenant, kind, value, owner)
            return answer
        return answer._replace(won=await self._take_over(found, kept))

    async def renew(self, tenant: str, kind: str, value: str, turn: str) -> bool:
        """Put the claim's end 30 s ahead; tell whether it is still the turn's."""
        return await self._change(tenant, kind, value, turn, [{"$set": {"until": _until(kind)}}])

    async def settle(self, tenant: str, kind: str, value: str, turn: str) -> None:
        """Mark the turn as stored: the claim stays valid until retention ends it."""
        await self._change(tenant, kind, value, turn, {"$set": {"settled": True}})

    async def drop(self, tenant: str, kind: str, value: str, turn: str, *, settled: bool = False) -> None:
        """Remove the claim of a turn that certainly never began, also a `settled` one if that is asked for."""
        mine: dict[str, Any] = {"_id": _name(tenant, kind, value), "turn": turn}
        if not settled:
            mine["settled"] = False
        await self._run(self._collection.delete_one(mine))

    async def _change(self, tenant: str, kind: str, value: str, turn: str, update: Any) -> bool:
        mine = {"_id": _name(tenant, kind, value), "turn": turn}
        result = await self._run(self._collection.update_one(mine, update))
        return bool(result.matched_count)

    async def _ran_out(self, found: dict[str, Any]) -> bool:
        ran_out = {**_as_seen(found), "$expr": {"$lt": ["$until", "$$NOW"]}}
        return await self._run(self._collection.find_one(ran_out, {"_id": 1})) is not None

    async def _take_over(self, found: dict[str, Any], kept: dict[str, Any]) -> bool:
        result = await self._run(self._collection.update_one(_as_seen(found), [{"$set": kept}]))
        return bool(result.matched_count)


def _until(kind: str) -> dict[str, Any]:
    return {"$add": ["$$NOW", KEY_CLAIM_MS if kind.startswith(KEY_CLAIMS) else CLAIM_MS]}


def _name(tenant: str, kind: str, value: str) -> str:
    if not (is_id(tenant) and is_id(kind)):
        raise Bug("the tenant or the kind of a claim is not an id, so its name would be ambiguous")
    return f"{tenant}:{kind}:{value}"


def _as_seen(found: dict[str, Any]) -> dict[str, Any]:
    return {field: found[field] for field in ("_id", "turn", "until", "settled")}


def _insert(tenant: str, turn: str, fingerprint: str, kept: dict[str, Any]) -> list[dict[str, Any]]:
    claim = {
        "_id": "$_id",
        "tenant": {"$literal": tenant},
        "turn": {"$literal": turn},
        "fingerprint": {"$literal": fingerprint},
        "settled": {"$literal": False},
        "claimed_at": "$$NOW",
        **kept,
    }
    return [{"$replaceWith": {"$cond": [{"$eq": [{"$type": "$turn"}, "missing"]}, claim, "$$ROOT"]}}]
