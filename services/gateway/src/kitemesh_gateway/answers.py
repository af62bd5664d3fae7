"""From what a person answered to verdicts on a hold's calls, or everything that is wrong with the answer. Pure.

Edited arguments are judged as strictly as the model's own: by the schema of the very tool that was held.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from kitemesh_contracts import canonical
from kitemesh_contracts.errors import BadRequest, Conflict, ErrorCode
from kitemesh_gateway.dialects.base import Mistake, Mistakes
from kitemesh_runtime import schemas
from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.holds import HeldCall, Hold, Verdict
from kitemesh_runtime.policies import first_rule
from kitemesh_runtime.secret_arguments import MASK

SHOWN_CHARS: Final = 64


class Answer(NamedTuple):
    """What a person says of one call.

    Attributes:
        reason: Told to the model when the call is denied, and kept in any case.
        arguments: JSON text to run instead; `None` leaves the call's own.

    """

    approved: bool
    reason: str = ""
    arguments: str | None = None


def verdicts_of(
    hold: Hold,
    answers: Mapping[str, Answer],
    *,
    by: str,
    origin: str,
    model: str | None,
    catalog: Catalog,
) -> dict[str, Verdict]:
    """Return the verdicts that the answers mean.

    Args:
        hold: The calls.
        answers: By tool execution id.
        by: The key's id.
        origin: The address that they come from.
        model: What the caller takes the hold's model to be; `None` does not ask.
        catalog: The tools as they are now, and the rules.

    Raises:
        Mistakes: With everything that is wrong.
        Conflict: Arguments were edited, and the tool is not the one any more that was held (`tool.changed`).

    """
    calls = {call.id: call for call in hold.calls}
    mistakes = [] if model in (None, hold.model) else [Mistake("model", "is not the one that the approval belongs to")]
    mistakes += [Mistake("", f"{_shown(call)} is not a call of this approval") for call in answers if call not in calls]
    if not answers:
        mistakes.append(Mistake("", "No call is decided"))
    elif hold.together:
        missing = [call for call in calls if call not in answers]
        mistakes += [Mistake("", f"{call} is not decided, and this approval is decided as a whole") for call in missing]
    verdicts: dict[str, Verdict] = {}
    changed: list[str] = []
    for id_, answer in answers.items():
        call = calls.get(id_)
        if call is None:
            continue
        arguments = None
        if answer.arguments is not None and not answer.approved:
            mistakes.append(Mistake("", f"{id_} is denied and cannot be given arguments"))
        elif answer.arguments is not None:
            try:
                arguments = _edited(call, answer.arguments)
            except BadRequest as exc:
                mistakes.append(Mistake("", f"{id_}: {exc.message}"))
        # A call that is decided already runs as it was judged then: here it is only compared.
        if arguments is not None and call.verdict is None:
            tool = catalog.tools.get(call.name)
            if tool is None or tool.version() != call.version:
                changed.append(call.name)
            else:
                values: Mapping[str, Any] = msgspec.json.decode(arguments)
                wrong = schemas.problems(tool.parameters, values) or _forbidden(hold, call, values, catalog)
                mistakes += [Mistake("", f"{id_}: {what}") for what in wrong]
        verdicts[id_] = Verdict(
            approved=answer.approved,
            reason=answer.reason,
            arguments=arguments,
            sha256="" if arguments is None else canonical.sha256(arguments),
            by=by,
            origin=origin,
        )
    if mistakes:
        raise Mistakes(mistakes)
    if changed:
        names = ", ".join(dict.fromkeys(changed))
        message = f"The definition of {names} has changed since the call was held: its arguments cannot be edited"
        raise Conflict(ErrorCode.TOOL_CHANGED, message)
    return verdicts


def _forbidden(hold: Hold, call: HeldCall, values: Mapping[str, Any], catalog: Catalog) -> Sequence[str]:
    """Say what the rules have against a call that only a person wrote: none may allow what the operator denies."""
    rule = first_rule(catalog.policies, call.name, hold.agent or "", hold.tenant, values)
    if rule is None or rule.then != "deny":
        return ()
    return (rule.reason or "A rule of this installation forbids the call",)


def _edited(call: HeldCall, text: str) -> str | None:
    """Return the canonical arguments to run instead; `None` when they are the call's own."""
    edited = canonical.canonical(text)
    if call.shown != call.arguments:
        own, shown, wanted = (msgspec.json.decode(each) for each in (call.arguments, call.shown, edited))
        meant = _unmasked(own, shown, wanted)
        if _holds_mask(meant):
            raise BadRequest(ErrorCode.REQUEST_INVALID, f"write out what is shown as {MASK}, or leave it where it is")
        edited = canonical.canonical(msgspec.json.encode(meant).decode())
    return None if edited == call.arguments else edited


def _unmasked(own: Any, shown: Any, wanted: Any) -> Any:
    """Put a secret back where an editor left its mask as it was shown."""
    if wanted == shown:
        return own
    if isinstance(own, dict) and isinstance(shown, dict) and isinstance(wanted, dict):
        return {
            name: _unmasked(own[name], shown[name], value) if name in own and name in shown else value
            for name, value in wanted.items()
        }
    return wanted


def _holds_mask(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_holds_mask(each) for each in value.values())
    if isinstance(value, list):
        return any(_holds_mask(each) for each in value)
    return bool(value == MASK)


def _shown(call: str) -> str:
    # Whatever the client wrote is told back on one line, escaped and shortened.
    return repr(call if len(call) <= SHOWN_CHARS else call[:SHOWN_CHARS] + "…")
