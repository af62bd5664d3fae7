"""What the audit says of a hold. Pure: everything is in the hold's document, so that any process may write it down."""

from kitemesh_contracts import canonical
from kitemesh_runtime.audit import AuditRow
from kitemesh_runtime.holds import HeldCall, Hold


def audit_rows(hold: Hold) -> list[AuditRow]:
    """Return a row for the request, one for each write that decided calls, and one for an end without a decision.

    Their ids put those of one millisecond into this order.
    """
    rows = [
        AuditRow(
            id=f"{hold.id}:0:requested",
            tenant=hold.tenant,
            subject=hold.id,
            what="approval.requested",
            calls={call.id: "held" for call in hold.calls},
            at_s=hold.created_at_s,
        )
    ]
    deeds: dict[tuple[str, str, float], list[HeldCall]] = {}
    for call in hold.calls:
        if call.verdict is not None:
            deeds.setdefault((call.verdict.by, call.verdict.origin, call.verdict.at_s), []).append(call)
    for (by, origin, at_s), calls in deeds.items():
        reasons = [call.verdict.reason for call in calls if call.verdict is not None and call.verdict.reason]
        rows.append(
            AuditRow(
                # Writes of one person within a millisecond look like one, so the calls are in the name.
                id=f"{hold.id}:1:decided:{canonical.sha256(' '.join(call.id for call in calls))[:16]}",
                tenant=hold.tenant,
                subject=hold.id,
                what="approval.decided",
                by=by,
                origin=origin,
                calls={call.id: _word(call) for call in calls},
                reason="; ".join(dict.fromkeys(reasons)),
                at_s=at_s,
            )
        )
    if hold.status in {"expired", "cancelled"}:
        rows.append(
            AuditRow(
                id=f"{hold.id}:2:{hold.status}",
                tenant=hold.tenant,
                subject=hold.id,
                what=f"approval.{hold.status}",
                reason=hold.reason,
            )
        )
    return rows


def _word(call: HeldCall) -> str:
    verdict = call.verdict
    if verdict is None or not verdict.approved:
        return "denied"
    return "approved" if verdict.arguments is None else "edited"
