"""Approvals as people read them. Pure; whatever a model wrote is escaped, so that no text passes for another."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from kitemesh_cli.tables import lay_out, length
from kitemesh_runtime.one_line import one_line

Json = Mapping[str, Any]

_WIDTH: Final = 11
_SENTENCE_CHARS: Final = 120


def table(approvals: Sequence[Json], now_s: float) -> str:
    """Return a line for each approval."""
    rows = [
        (
            _text(each.get("id")),
            length(now_s - _epoch_s(each.get("created_at"))),
            _end(each, now_s),
            _text(each.get("agent")) or "-",
            _sum_up(_calls(each)),
        )
        for each in approvals
    ]
    return lay_out(("ID", "AGE", "EXPIRES IN", "AGENT", "WHAT"), rows)


def whole(approval: Json, now_s: float) -> str:
    """Return everything about an approval."""
    together = approval.get("decide") == "batch"
    lines = [
        _field("approval", approval.get("id")),
        _field("status", _status(approval, now_s)),
        _field("execution", approval.get("execution_id")),
        _field("for", ", ".join(filter(None, [_text(approval.get("agent")), _text(approval.get("model"))]))),
        _field(
            "deciding", f"{'all calls together' if together else 'each call'}, scope {_text(approval.get('scope'))}"
        ),
    ]
    for call in _calls(approval):
        lines += ["", *_call(call)]
    audit = approval.get("audit")
    if isinstance(audit, list) and audit:
        lines += ["", "audit", *(f"  {_deed(row)}" for row in audit if isinstance(row, dict))]
    return "\n".join(lines)


def outcome(approval: Json, chosen: Sequence[str]) -> str:
    """Return what became of the chosen calls, a line each."""
    calls = [call for call in _calls(approval) if call.get("tool_execution_id") in chosen]
    return "\n".join(f"{_verdict(call) or 'undecided'}: {_text(call.get('sentence'))}" for call in calls)


def undecided(approval: Json) -> list[str]:
    """Return the ids of the calls that nobody decided so far."""
    return [str(call.get("tool_execution_id")) for call in _calls(approval) if not call.get("decision")]


def _call(call: Json) -> Iterator[str]:
    yield f"call {_text(call.get('tool_execution_id'))}"
    yield f"  {_text(call.get('sentence'))}"
    name, effect, version = (_text(call.get(field)) for field in ("name", "effect", "tool_version"))
    yield f"  {_field('tool', f'{name} ({effect}, version {version[:12]})')}"
    yield f"  {_field('arguments', _json(call.get('arguments')))}"
    decision = call.get("decision")
    if isinstance(decision, dict):
        who = f"{_verdict(call)} by {_by(decision)} at {_text(decision.get('at'))}"
        yield f"  {_field('decision', who)}"
        if decision.get("reason"):
            yield f"  {_field('reason', decision['reason'])}"
        if decision.get("edited_arguments") is not None:
            yield f"  {_field('runs with', _json(decision['edited_arguments']))}"
    else:
        yield f"  {_field('decision', 'none so far')}"


def _deed(row: Json) -> str:
    calls = row.get("calls")
    listed = (
        ", ".join(f"{_text(call)} {_text(what)}" for call, what in calls.items()) if isinstance(calls, dict) else ""
    )
    reason = f": {_text(row['reason'])}" if row.get("reason") else ""
    return f"{_text(row.get('at'))}  {_text(row.get('what'))}  {_by(row)}  {listed}{reason}".rstrip()


def _by(deed: Json) -> str:
    key, origin = _text(deed.get("by")), _text(deed.get("from"))
    return f"{f'key {key}' if key else 'nobody named'}{f' from {origin}' if origin else ''}"


def _verdict(call: Json) -> str:
    decision = call.get("decision")
    if not isinstance(decision, dict):
        return ""
    if not decision.get("approved"):
        return "denied"
    edited = decision.get("edited") or decision.get("edited_arguments") is not None
    return "approved with other arguments" if edited else "approved"


def _status(approval: Json, now_s: float) -> str:
    status = _text(approval.get("status"))
    reason = f": {_text(approval['reason'])}" if approval.get("reason") else ""
    end = f", expires in {_end(approval, now_s)}" if status == "open" else ""
    return f"{status}{reason}{end}"


def _end(approval: Json, now_s: float) -> str:
    if approval.get("status") != "open":
        return _text(approval.get("status"))
    return length(_epoch_s(approval.get("expires_at")) - now_s)


def _sum_up(calls: Sequence[Json]) -> str:
    first = _text(calls[0].get("sentence")) if calls else "-"
    first = first if len(first) <= _SENTENCE_CHARS else first[: _SENTENCE_CHARS - 1] + "…"
    return f"{first} (and {len(calls) - 1} more)" if len(calls) > 1 else first


def _calls(approval: Json) -> list[Json]:
    calls = approval.get("calls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def _field(name: str, value: object) -> str:
    return f"{name:<{_WIDTH}}{_text(value)}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _text(value: object) -> str:
    return "" if value is None else one_line(str(value))


def _epoch_s(text: object) -> float:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0
