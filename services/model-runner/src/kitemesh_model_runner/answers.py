"""Results: their names, and those that the bus did not take yet, kept to be sent again and never generated again."""

import math
from typing import Final, NamedTuple

from kitemesh_contracts.headers import classic_result_msg_id, job_msg_id
from kitemesh_model_runner.attempt import Result
from kitemesh_runtime.bus import Delivery

UNSENT_MAX: Final = 1024


class Answer(NamedTuple):
    """A result, and how it is sent.

    Attributes:
        deliveries_max: The newest delivery that may send it: behind it another worker may have claimed the job.

    """

    result: Result
    msg_id: str
    deliveries_max: float

    @property
    def is_anyones(self) -> bool:
        """Whether any delivery may send it."""
        return self.deliveries_max == math.inf


def result_id(turn: str, step: int, attempt: int, *, stored: bool) -> str:
    """Name a job's result: of a stored job each attempt has one of its own, of a classic one the first wins."""
    if stored:
        return job_msg_id(turn, step, "model", 0, attempt)
    return classic_result_msg_id(turn, step, "model", 0)


class Unsent:
    """The answers that wait, by their job's message, oldest first."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, int], Answer] = {}

    def find(self, delivery: Delivery) -> Answer | None:
        """Return what a delivery is to send."""
        answer = self._answers.get((delivery.subject, delivery.sequence))
        return answer if answer is not None and delivery.deliveries <= answer.deliveries_max else None

    def keep(self, delivery: Delivery, answer: Answer | None) -> None:
        """Keep an answer, if there is one."""
        if answer is None:
            return
        # One that nobody asks for again, because its job was redelivered elsewhere, is pushed out by others.
        while len(self._answers) >= UNSENT_MAX:
            del self._answers[next(iter(self._answers))]
        self._answers[delivery.subject, delivery.sequence] = answer

    def drop(self, delivery: Delivery) -> None:
        """Forget the answer of a delivery: it is sent."""
        self._answers.pop((delivery.subject, delivery.sequence), None)
