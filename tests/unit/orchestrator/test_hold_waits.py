import pytest

from kitemesh_orchestrator.holding import waited_s
from kitemesh_runtime.holds import HeldCall, Hold, HoldStatus, Verdict


def hold(status: HoldStatus, *decided_s: float) -> Hold:
    """Return a hold opened at 100 that runs out at 160, with calls decided then, and one that nobody decided."""
    verdicts = [*(Verdict(approved=True, at_s=at_s) for at_s in decided_s), None]
    calls = tuple(
        HeldCall(
            id=str(n),
            name="pay",
            version="v1",
            effect="once",
            arguments="{}",
            sha256="00",
            sentence="",
            shown="{}",
            verdict=verdict,
        )
        for n, verdict in enumerate(verdicts)
    )
    times = {"created_at_s": 100.0, "expires_at_s": 160.0}
    return Hold(id="h", tenant="t", turn="t", step=1, model="m", calls=calls, status=status, **times)


@pytest.mark.parametrize(
    ("ended", "waited"),
    [
        (hold("decided", 110.0, 130.0), 30.0),
        # What was decided before it ran out says nothing of its end.
        (hold("expired", 110.0), 60.0),
        (hold("cancelled", 110.0), 150.0),
    ],
    ids=["by its last answer", "by its end", "when it is noticed"],
)
def test_a_hold_has_waited_from_its_opening_to_its_end(ended: Hold, waited: float) -> None:
    assert waited_s(ended, now_ms=250_000) == waited


def test_a_clock_that_is_behind_makes_no_wait_negative() -> None:
    assert waited_s(hold("cancelled"), now_ms=90_000) == 0
