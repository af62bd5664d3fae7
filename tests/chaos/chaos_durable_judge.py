"""What must hold of durable turns after faults, beside what holds of turns with effects: nothing twice, no error."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from pymongo import MongoClient

from chaos.chaos_durable_cluster import Durable
from chaos.chaos_durable_turns import DurableTurn
from chaos.invariants import ENDED, Verdict, judge
from kitemesh_runtime.conversation_updates_mongo import id_of

Document = dict[str, Any]


def judge_durable(durable: Durable, turns: Sequence[DurableTurn]) -> Verdict:
    """Hold turns that nobody works on any more against the promises."""
    verdict = judge(durable.faulty, turns)
    for turn in turns:
        _judge_shown(turn, verdict)
    environ = durable.faulty.cluster.environment()
    with MongoClient[Document](environ["KITEMESH_MONGO_URL"]) as client:
        store = client[environ["KITEMESH_MONGO_DATABASE"]]
        _judge_ends(store["turns"], verdict)
        _judge_twins(store["turns"], turns, verdict)
        _judge_conversations(store, turns, verdict)
    return verdict


def _judge_shown(turn: DurableTurn, verdict: Verdict) -> None:
    def wrong(sentence: str) -> None:
        verdict.violations.append(f"{turn.tag} {turn.execution} ({turn.kind}): {sentence}")

    for sentence in turn.wrong:
        wrong(sentence)
    for error in turn.errors:
        wrong(f"was told an error that scripts never earn: {error}")
    if turn.result != "answered" and not turn.errors:
        verdict.lost.add(turn.execution or turn.tag)
        wrong(f"its client gave up: {turn.problem}")
    if turn.is_keyed and len(turn.ids) > 1:
        verdict.duplicated.add(turn.tag)
        wrong(f"one key stands for several executions: {sorted(turn.ids)}")


def _judge_ends(store: Any, verdict: Verdict) -> None:
    """Note turns that were stored and have no end, those included that no client knows of."""
    for document in store.find({"status": {"$nin": sorted(ENDED)}}, {"status": 1}):
        if document["_id"] not in verdict.lost:
            verdict.lost.add(document["_id"])
            verdict.violations.append(f"{document['_id']} has no end: {document['status']}")


def _judge_twins(store: Any, turns: Sequence[DurableTurn], verdict: Verdict) -> None:
    """Note requests that became two turns."""
    stored: dict[str, set[str]] = defaultdict(set)
    for document in store.find({}, {"input": 1}):
        for message in document.get("input", ()):
            stored[_text(message)].add(document["_id"])
    for turn in turns:
        found = stored[turn.prompt]
        if turn.is_keyed and len(found) > 1:
            verdict.duplicated.add(turn.tag)
            verdict.violations.append(f"{turn.tag} was stored as {len(found)} turns: {sorted(found)}")


def _text(message: Document) -> str:
    return "".join(part.get("text", "") for part in message.get("parts", ()))


def _judge_conversations(store: Any, turns: Sequence[DurableTurn], verdict: Verdict) -> None:
    """Note conversations in which a turn counts twice, or not at all."""
    wanted: dict[str, int] = {}
    for turn in turns:
        if turn.is_keyed and turn.conversation and turn.result == "answered":
            wanted[turn.conversation] = max(wanted.get(turn.conversation, 0), turn.after + 1)
    ordinals: dict[str, list[int]] = defaultdict(list)
    for document in store["turns"].find({"conversation": {"$in": list(wanted)}}, {"conversation": 1, "ordinal": 1}):
        ordinals[document["conversation"]].append(document.get("ordinal", 0))
    named = {"$in": [re.compile(f":{name}$") for name in wanted]}
    for document in store["conversations"].find({"_id": named}):
        name = id_of(document["_id"])
        count = wanted[name]
        if (document.get("turns"), sorted(ordinals[name])) != (count, list(range(1, count + 1))):
            verdict.violations.append(
                f"conversation {name} should have {count} turns and says {document.get('turns')}: {ordinals[name]}"
            )
