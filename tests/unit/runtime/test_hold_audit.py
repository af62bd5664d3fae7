"""What the audit says of a hold: who, what, from where; noted again it is the same."""

import hashlib
from typing import Any, Final

import msgspec
import pytest

from kitemesh_runtime.audit import AuditRow
from kitemesh_runtime.hold_audit import audit_rows
from kitemesh_runtime.holds import HeldCall, Hold, HoldStatus, Verdict

change: Final = msgspec.structs.replace


def held(name: str, verdict: Verdict | None = None) -> HeldCall:
    return HeldCall(
        id=name,
        name="pay",
        version="v1",
        effect="once",
        arguments='{"card_token":"4711"}',
        sha256="x",
        sentence="Pay 5",
        shown='{"card_token":"***"}',
        verdict=verdict,
    )


def hold(*calls: HeldCall, **more: Any) -> Hold:
    return Hold(**{"id": "h1", "tenant": "acme", "turn": "t1", "step": 1, "model": "m", "calls": calls, **more})


def verdict(*, approved: bool = True, **more: Any) -> Verdict:
    return Verdict(**{"approved": approved, "by": "AbCd1234", "origin": "192.0.2.7", "at_s": 100.5, **more})


def decided(*calls: str) -> str:
    """Return the id of the row of an answer that decided such calls."""
    return f"h1:1:decided:{hashlib.sha256(' '.join(calls).encode()).hexdigest()[:16]}"


REQUESTED: Final = AuditRow(
    id="h1:0:requested", tenant="acme", subject="h1", what="approval.requested", calls={"c1": "held", "c2": "held"}
)


def test_an_open_hold_was_requested() -> None:
    assert audit_rows(hold(held("c1"), held("c2"))) == [REQUESTED]


def test_one_answer_is_one_row_with_who_when_and_from_where() -> None:
    yes, no = verdict(), verdict(approved=False, reason="too much")
    rows = audit_rows(hold(held("c1", yes), held("c2", no), status="decided"))
    assert rows == [
        REQUESTED,
        AuditRow(
            id=decided("c1", "c2"),
            tenant="acme",
            subject="h1",
            what="approval.decided",
            by="AbCd1234",
            origin="192.0.2.7",
            calls={"c1": "approved", "c2": "denied"},
            reason="too much",
            at_s=100.5,
        ),
    ]


@pytest.mark.parametrize("other", [{"by": "Else5678"}, {"origin": "192.0.2.8"}, {"at_s": 101.0}])
def test_answers_of_others_or_at_other_times_are_rows_of_their_own(other: dict[str, Any]) -> None:
    rows = audit_rows(hold(held("c1", verdict()), held("c2", verdict(**other)), held("c3", verdict())))
    assert [(row.id, row.calls) for row in rows[1:]] == [
        (decided("c1", "c3"), {"c1": "approved", "c3": "approved"}),
        (decided("c2"), {"c2": "approved"}),
    ]


def test_what_was_noted_before_a_second_answer_is_noted_the_same_after_it() -> None:
    first = audit_rows(hold(held("c1"), held("c2", verdict())))
    both = audit_rows(hold(held("c1", verdict(at_s=200.0)), held("c2", verdict())))
    assert {row.id: row for row in first}.items() <= {row.id: row for row in both}.items()
    assert len({row.id for row in both}) == 3


def test_two_answers_at_one_moment_that_come_to_look_like_one_lose_no_row() -> None:
    first = audit_rows(hold(held("c1", verdict()), held("c2")))
    both = audit_rows(hold(held("c1", verdict()), held("c2", verdict())))
    assert [row.id for row in first] == ["h1:0:requested", decided("c1")]
    assert [row.id for row in both] == ["h1:0:requested", decided("c1", "c2")]


def test_edited_arguments_are_said_to_be_and_a_denial_is_a_denial() -> None:
    edited = verdict(arguments='{"card_token":"4712"}')
    denied = verdict(approved=False, arguments='{"card_token":"4712"}')
    (_, row) = audit_rows(hold(held("c1", edited), held("c2", denied)))
    assert row.calls == {"c1": "edited", "c2": "denied"}


def test_reasons_are_each_told_once() -> None:
    verdicts = [verdict(approved=False, reason=reason) for reason in ("late", "", "late", "wrong")]
    (_, row) = audit_rows(hold(*(held(f"c{number}", each) for number, each in enumerate(verdicts))))
    assert row.reason == "late; wrong"


@pytest.mark.parametrize(
    ("status", "whats"),
    [
        ("open", ["approval.requested", "approval.decided"]),
        ("decided", ["approval.requested", "approval.decided"]),
        ("expired", ["approval.requested", "approval.decided", "approval.expired"]),
        ("cancelled", ["approval.requested", "approval.decided", "approval.cancelled"]),
    ],
)
def test_an_end_without_a_decision_is_a_row_with_its_reason(status: HoldStatus, whats: list[str]) -> None:
    rows = audit_rows(hold(held("c1", verdict()), held("c2"), status=status, reason="superseded"))
    assert [row.what for row in rows] == whats
    if len(rows) == 3:
        assert (rows[2].id, rows[2].reason, rows[2].by) == (f"h1:2:{status}", "superseded", "")


def test_no_row_holds_arguments() -> None:
    edited = verdict(arguments='{"card_token":"4712"}')
    rows = audit_rows(hold(held("c1", edited), status="cancelled"))
    assert b"471" not in msgspec.json.encode(rows)
