"""What must hold of turns after faults: their ends, their effects at the stub, their rows, and what was shown."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pymongo import MongoClient

from chaos.chaos_turns import Turn
from chaos.effect_catalog import Effect
from chaos.faulty_cluster import Faulty
from kitemesh_contracts.errors import ErrorCode

ENDED: Final = frozenset({"completed", "failed", "cancelled"})

Document = dict[str, Any]


@dataclass
class Verdict:
    """What was found.

    Attributes:
        violations: One sentence each.
        lost: Execution ids, or tags of turns without one, of turns with neither an end nor a hold.
        duplicated: Tags of effects that happened more than once.
        unknown: Tags of calls whose outcome is unknown.

    """

    violations: list[str] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    duplicated: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)


def judge(faulty: Faulty, turns: Sequence[Turn]) -> Verdict:
    """Hold turns that nobody works on any more against the promises."""
    environ = faulty.cluster.environment()
    tags = {tag: effect for turn in turns for tag, effect in turn.tags.items()}
    verdict = Verdict()
    with MongoClient[Document](environ["KITEMESH_MONGO_URL"]) as client:
        store = client[environ["KITEMESH_MONGO_DATABASE"]]
        ids = [turn.execution for turn in turns if turn.execution]
        documents = {turn["_id"]: turn for turn in store["turns"].find({"_id": {"$in": ids}})}
        rows = {row["_id"]: row for row in store["ledger"].find({"turn": {"$in": ids}})}
        unapplied = store["holds"].count_documents({"turn": {"$in": ids}, "$expr": {"$ne": ["$version", "$applied"]}})
    if unapplied:
        verdict.violations.append(f"{unapplied} holds are decided and not applied")
    effects = _effects(faulty, tags, verdict)
    for turn in turns:
        _Judge(turn, rows, effects, verdict).judge(documents.get(turn.execution))
    return verdict


def _effects(faulty: Faulty, tags: Mapping[str, Effect], verdict: Verdict) -> dict[str, list[str]]:
    """Return each tag's effects at the stub, as the ids of their calls, and note what happened twice."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in faulty.stub.effects():
        tag = line["path"].rpartition("/")[2].partition("?")[0]
        if tag in tags:
            found[tag].append(line["id"])
    for tag, effect in tags.items():
        if effect != "safe" and len(found[tag]) > 1:
            verdict.duplicated.add(tag)
            verdict.violations.append(f"{tag}: {len(found[tag])} effects of a call that is {effect}: {found[tag]}")
        if len(set(found[tag])) > 1:
            verdict.violations.append(f"{tag}: one call ran under several ids: {sorted(set(found[tag]))}")
    return found


class _Judge:
    """Holds one turn against the promises.

    Args:
        turn: The turn.
        rows: Of the ledger, by the id of the call.
        effects: At the stub, by tag, as ids of calls.
        verdict: Where what is found is noted.

    """

    def __init__(
        self, turn: Turn, rows: Mapping[str, Document], effects: Mapping[str, list[str]], verdict: Verdict
    ) -> None:
        self._turn = turn
        self._rows = rows
        self._effects = effects
        self._verdict = verdict

    def judge(self, document: Document | None) -> None:
        """Judge it by its document; `None` when it was not stored."""
        turn = self._turn
        status = document["status"] if document is not None else "not stored"
        if turn.result == "lost" or (turn.result != "refused" and status not in ENDED | {"held"}):
            self._verdict.lost.add(turn.execution or turn.tag)
            self._wrong(f"is lost: {status}; {turn.problem}")
        if turn.result == "refused" and any(self._effects[tag] for tag in turn.tags):
            self._wrong(f"was refused and had an effect: {turn.problem}")
        if document is None:
            return
        if turn.result == "answered":
            stored = document.get("answer", {}).get("text")
            if (status, stored, turn.shown) != ("completed", turn.answer, turn.answer):
                self._wrong(f"was shown {turn.shown!r} and is stored as {status} with {stored!r}")
        results = dict(_results(document.get("steps", ())))
        for tag, effect in turn.tags.items():
            self._judge_call(tag, effect, results.get(tag))

    def _judge_call(self, tag: str, effect: Effect, result: Document | None) -> None:
        effects = self._effects[tag]
        call = result["call"] if result is not None else next(iter(effects), "")
        state = self._rows[call]["state"] if call in self._rows else "absent"
        if effect == "once" and state == "dispatched":
            self._wrong(f"nobody says that the outcome of {tag} is unknown: its row is dispatched")
        if result is None:
            if self._turn.result == "answered":
                self._wrong(f"was answered without a result of {tag}")
        elif (error := result.get("error")) is None:
            if not effects or state != ("absent" if effect == "safe" else "finished"):
                self._wrong(f"{tag}, {effect}, has a result, {len(effects)} effects and a row that is {state}")
        elif error["code"] != ErrorCode.TOOL_UNCERTAIN:
            self._wrong(f"{tag}, {effect}, ended with {error}")
        else:
            self._verdict.unknown.add(tag)
            if (effect, state) != ("once", "unknown"):
                self._wrong(f"the model was told that the outcome of {tag}, {effect}, is unknown: its row is {state}")

    def _wrong(self, sentence: str) -> None:
        turn = self._turn
        self._verdict.violations.append(f"{turn.tag} {turn.execution} ({turn.shape}, {turn.result}): {sentence}")


def _results(steps: Iterable[Document]) -> Iterable[tuple[str, Document]]:
    """Yield the result of each call by the tag in its arguments."""
    for step in steps:
        found = {result["call"]: result for result in step.get("results", ())}
        for call in step.get("calls", ()):
            if call["id"] in found:
                yield json.loads(call["arguments"])["tag"], found[call["id"]]
