"""How a question changes a budget's document: pipelines of the few shapes that questions have, each encoded once.

What differs from question to question travels beside the pipeline as constants: building and encoding all of it for
every question would cost the gateway more than the rest of a round.
"""

from functools import cache
from typing import Any, Final, NamedTuple

import bson
from bson.raw_bson import RawBSONDocument

from kitemesh_runtime.budgets import FORGOTTEN_S, SEAT_S, Ask
from kitemesh_runtime.documents_mongo import Document

SEATS: Final = "gateways"
"""The document's field that has what each gateway was answered last."""

_SEAT_MS: Final = int(SEAT_S * 1000)
_FORGOTTEN_MS: Final = int(FORGOTTEN_S * 1000)

# Rounded, so that the index on it is not written with every lease.
_TOUCHED: Final[Document] = {"$dateTrunc": {"date": "$$NOW", "unit": "minute", "binSize": 10}}


class _Shape(NamedTuple):
    gateway: str
    rates: tuple[tuple[str, bool], ...]
    has_slots: bool


def update(gateway: str, ask: Ask) -> tuple[RawBSONDocument, Document]:
    """Return the only stage of a question's pipeline, and its constants."""
    constants: dict[str, Any] = {"seq": ask.seq, "share": ask.gateways}
    rates = []
    for name, rate in (("requests", ask.requests), ("tokens", ask.tokens)):
        if rate is None:
            continue
        rates.append((name, rate.need > 0))
        constants |= {
            f"{name}_per_ms": rate.per_s / 1000,
            f"{name}_capacity": rate.capacity,
            f"{name}_back": rate.back,
            f"{name}_need": rate.need,
            f"{name}_piece": rate.piece,
            f"{name}_want": rate.want,
        }
    if ask.slots is not None:
        constants |= {"limit": ask.slots.limit, "used": ask.slots.used, "want": ask.slots.want}
    return _stage(_Shape(gateway, tuple(rates), ask.slots is not None)), constants


@cache
def _stage(shape: _Shape) -> RawBSONDocument:
    """Build what becomes of a document: nothing where it was asked this before."""
    asked = {"$gte": [{"$ifNull": [f"${SEATS}.{shape.gateway}.seq", -1]}, "$$seq"]}
    return RawBSONDocument(bson.encode({"$replaceWith": {"$cond": [asked, "$$ROOT", _answered(shape)]}}))


def _answered(shape: _Shape) -> Document:
    fields: Document = {"touched_at": _TOUCHED}
    seat: Document = {"seq": "$$seq", "at": "$$NOW"}
    levels: Document = {}
    needs: Document = {}
    grants: Document = {}
    for name, is_needed in shape.rates:
        level, need = f"$${name}_level", f"$${name}_given" if is_needed else 0
        levels[f"{name}_level"] = _filled(name)
        if is_needed:
            needs[f"{name}_given"] = _needed(name)
        grants[f"{name}_granted"] = _granted(name, level, need)
        left = {"$subtract": [level, f"$${name}_granted"]}
        fields[name] = {"level": left, "at": "$$NOW"}
        seat |= {name: f"$${name}_granted", f"{name}_left": left}
    if shape.has_slots:
        held = {"$max": ["$$used", {"$min": ["$$want", {"$subtract": ["$$limit", "$$others"]}]}]}
        seat |= {"held": held, "others": "$$others", "until": {"$add": ["$$NOW", _SEAT_MS]}}
    mine = {"$mergeObjects": [f"${SEATS}.{shape.gateway}", seat]}
    fields[SEATS] = {"$mergeObjects": [{"$arrayToObject": "$$seats"}, {shape.gateway: mine}]}
    body: Document = {"$mergeObjects": ["$$ROOT", fields]}
    if shape.has_slots:
        body = _let({"others": _others()}, body)
    return _let({"seats": _seats(shape.gateway)} | levels, _let(needs, _let(grants, body)))


def _filled(name: str) -> Document:
    passed_ms = {"$max": [0, {"$subtract": ["$$NOW", {"$ifNull": [f"${name}.at", "$$NOW"]}]}]}
    gained = {"$multiply": [passed_ms, f"$${name}_per_ms"]}
    level = {"$ifNull": [f"${name}.level", f"$${name}_capacity"]}
    filled = {"$min": [f"$${name}_capacity", {"$add": [level, gained]}]}
    return {"$min": [f"$${name}_capacity", {"$add": [filled, f"$${name}_back"]}]}


def _needed(name: str) -> Document:
    level, need, piece = f"$${name}_level", f"$${name}_need", f"$${name}_piece"
    pieces = {"$max": [0, {"$floor": {"$divide": [level, piece]}}]}
    return {"$cond": [{"$gte": [level, need]}, need, {"$multiply": [pieces, piece]}]}


def _granted(name: str, level: str, need: str | int) -> Document:
    share = {"$floor": {"$divide": [{"$subtract": [level, need]}, "$$share"]}}
    return {"$add": [need, {"$min": [f"$${name}_want", {"$max": [0, share]}]}]}


def _seats(gateway: str) -> Document:
    """List the other gateways' seats that are not forgotten."""
    recent = {"$gt": ["$$this.v.at", {"$subtract": ["$$NOW", _FORGOTTEN_MS]}]}
    seats = {"$objectToArray": {"$ifNull": [f"${SEATS}", {}]}}
    return {"$filter": {"input": seats, "cond": {"$and": [{"$ne": ["$$this.k", gateway]}, recent]}}}


def _others() -> Document:
    held = {"$cond": [{"$gt": ["$$this.v.until", "$$NOW"]}, "$$this.v.held", 0]}
    return {"$sum": {"$map": {"input": "$$seats", "in": held}}}


def _let(names: Document, value: Document) -> Document:
    return {"$let": {"vars": names, "in": value}} if names else value
