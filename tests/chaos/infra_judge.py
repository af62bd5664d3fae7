"""What must hold of turns after servers failed: their ends, what was shown, what is stored, and how soon."""

from collections.abc import Mapping
from typing import Any, Final

from pymongo import MongoClient

from chaos.infra_found import Found, quantile
from chaos.load_turns import LoadTurn
from cluster import Cluster

ENDED: Final = frozenset({"completed", "failed", "cancelled"})

Document = dict[str, Any]


def judge(cluster: Cluster, found: Found) -> None:
    """Hold a run whose turns nobody works on any more against the promises."""
    environ = cluster.environment()
    ids = [turn.execution for turn in found.turns if turn.execution]
    with MongoClient[Document](environ["KITEMESH_MONGO_URL"]) as client:
        turns = client[environ["KITEMESH_MONGO_DATABASE"]]["turns"]
        documents = {each["_id"]: each for each in turns.find({"_id": {"$in": ids}})}
    for turn in found.turns:
        _judge_turn(turn, documents.get(turn.execution), found)
    _judge_twins(found)
    _judge_times(found)


def _judge_turn(turn: LoadTurn, document: Document | None, found: Found) -> None:
    def wrong(sentence: str) -> None:
        found.violations.append(f"{turn.tag} {turn.execution} ({turn.mode}, {turn.result}): {sentence}")

    status = document["status"] if document is not None else "not stored"
    if turn.result == "lost" or (document is not None and status not in ENDED):
        found.lost.add(turn.tag)
        wrong(f"is lost: {status}; {turn.problem}")
    if not turn.exact:
        found.duplicated.add(turn.tag)
        wrong(f"was shown {turn.shown!r}, which is not its text")
    if turn.mode == "durable" and turn.result in ("failed", "refused"):
        wrong(f"its client gave up: {turn.problem}")
    if document is not None and document["mode"] != turn.mode:
        wrong(f"ran as {document['mode']}")
    if turn.result == "answered" and turn.asks[-1].stored:
        text = _text(document)
        if (status, text) != ("completed", turn.text):
            wrong(f"was answered and is stored as {status} with {text!r}")


def _text(document: Mapping[str, Any] | None) -> str | None:
    return None if document is None else document.get("answer", {}).get("text")


def _judge_twins(found: Found) -> None:
    """Note executions that two turns share: an idempotency key must not answer for another."""
    seen: dict[str, str] = {}
    for turn in found.turns:
        if turn.execution and seen.setdefault(turn.execution, turn.tag) != turn.tag:
            found.duplicated.add(turn.tag)
            found.violations.append(f"{turn.tag} and {seen[turn.execution]} are one execution, {turn.execution}")


def _judge_times(found: Found) -> None:
    for number, fault in enumerate(found.faults, 1):
        if fault.first_s is None:
            found.violations.append(f"fault {number}, {fault.kind}: no new turn was answered any more")
    bounds = found.bounds
    measured = (
        ("the first answer to a new turn after a fault", found.firsts_s(), bounds.first_s),
        ("full service after a fault", found.fulls_s(), bounds.full_s),
        ("what a fault added to a turn", found.stalls_s(), bounds.stall_s),
        ("a refusal", found.refusals_s(), bounds.refusal_s),
    )
    for what, values, bound_s in measured:
        if bound_s is not None and values and (worst_s := quantile(values, 1)) > bound_s:
            found.violations.append(f"{what} took {worst_s:.1f} s; promised are {bound_s:g} s")
