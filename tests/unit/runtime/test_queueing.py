"""What is believed of two clocks."""

import pytest

from kitemesh_contracts.topology import JOB_MAX_AGE_S
from kitemesh_runtime.queueing import queued_s


@pytest.mark.parametrize(
    ("published_at_s", "waited_s"),
    [
        (1000.0, 0.0),
        (990.0, 10.0),
        (1010.0, 0.0),
        (1000.0 - JOB_MAX_AGE_S, JOB_MAX_AGE_S),
        (999.0 - JOB_MAX_AGE_S, 0.0),
    ],
    ids=["at once", "waited", "this clock is behind", "as long as a stream keeps it", "this clock is ahead"],
)
def test_a_wait_is_believed_as_far_as_it_is_possible(published_at_s: float, waited_s: float) -> None:
    assert queued_s(published_at_s, now_ms=1_000_000.0) == pytest.approx(waited_s)
