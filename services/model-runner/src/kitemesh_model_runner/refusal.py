"""The failure that answers a job which no attempt can read, as far as the job says whose it is."""

from typing import Final

import structlog
from msgspec import Raw, Struct
from msgspec.json import Decoder

from kitemesh_contracts import codec
from kitemesh_contracts.errors import ContractViolation, ErrorCode, ErrorInfo
from kitemesh_contracts.events import StepFailed
from kitemesh_model_runner.answers import result_id
from kitemesh_runtime.bus import Delivery

UNREADABLE: Final = ErrorInfo(code=ErrorCode.CONTRACT_VIOLATED, message="The model-runner cannot read the job")

_NO_CARRY: Final = Raw(b"null")

log: Final = structlog.get_logger()


class _Bare(Struct, frozen=True, kw_only=True):
    """What a failure takes from its job."""

    turn: str
    tenant: str
    step: int
    attempt: int
    stored: bool = False
    carry: Raw = _NO_CARRY


_BARE: Final = Decoder(_Bare)


def refusal(delivery: Delivery, reason: str) -> tuple[StepFailed, str] | None:
    """Return the failure and its message id; `None`, and a line in the log, when nobody can be told."""
    try:
        job = codec.decode(_BARE, delivery.data)
    except ContractViolation as exc:
        log.error("job.unanswered", subject=delivery.subject, reason=f"{reason}; {exc.message}")  # noqa: TRY400  it is all
        return None
    if job.carry is _NO_CARRY and not job.stored:
        log.error("job.unanswered", subject=delivery.subject, reason=f"{reason}; it carries no state")
        return None
    failed = StepFailed(
        turn=job.turn,
        tenant=job.tenant,
        step=job.step,
        attempt=job.attempt,
        error=UNREADABLE,
        carry=job.carry,
    )
    return failed, result_id(job.turn, job.step, job.attempt, stored=job.stored)
