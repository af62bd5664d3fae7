"""Names of the headers that travel on the bus and over HTTP, spelled here and nowhere else."""

from typing import Final

MSG_ID: Final = "Nats-Msg-Id"
EXPECTED_STREAM: Final = "Nats-Expected-Stream"
SCHEDULE: Final = "Nats-Schedule"
SCHEDULE_TARGET: Final = "Nats-Schedule-Target"

REQUEST_ID: Final = "x-request-id"
EXECUTION_ID: Final = "x-execution-id"
CONVERSATION_ID: Final = "x-conversation-id"
SERVER_TIMING: Final = "Server-Timing"
RETRY_AFTER: Final = "Retry-After"
SHOULD_RETRY: Final = "x-should-retry"
IDEMPOTENCY_KEY: Final = "Idempotency-Key"
LAST_EVENT_ID: Final = "Last-Event-ID"
IDEMPOTENCY_REPLAYED: Final = "Idempotency-Replayed"
LOCATION: Final = "Location"
PRIORITY: Final = "x-kitemesh-priority"
MAX_WAIT: Final = "x-kitemesh-max-wait-s"
ACCEL_BUFFERING: Final = "x-accel-buffering"


def job_msg_id(turn: str, step: int, kind: str, index: int, attempt: int) -> str:
    """Name a command, and its durable result, so that the bus refuses a second copy.

    Args:
        turn: Turn id.
        step: Step number.
        kind: `model` or `tool`.
        index: The job's number within the step.
        attempt: Raised by every re-drive, or the bus would swallow it.

    """
    return f"{turn}:{step}:{kind}:{index}:{attempt}"


def classic_result_msg_id(turn: str, step: int, kind: str, index: int) -> str:
    """Name a classic result: without the attempt, so that the first one wins."""
    return f"{turn}:{step}:{kind}:{index}:result"


def released_msg_id(turn: str, step: int, kind: str, index: int, attempt: int) -> str:
    """Name a hand-back; one for each attempt."""
    return f"{turn}:{step}:{kind}:{index}:{attempt}:released"


def hold_msg_id(hold: str, version: int) -> str:
    """Name the message that has a hold applied; each decision of it has a version of its own."""
    return f"{hold}:apply:{version}"


def cancel_msg_id(turn: str) -> str:
    """Name the message that ends a stored turn as cancelled."""
    return f"{turn}:cancel"


def late_start_msg_id(turn: str) -> str:
    """Name a stored turn's start that its gateway could not publish in time."""
    return f"{turn}:start:late"


def start_msg_id(turn: str, n: int = 0) -> str:
    """Name a turn's start; `n` counts the times it was promoted or driven again."""
    return f"{turn}:start:{n}"
