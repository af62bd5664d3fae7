"""Subjects: built and parsed here and nowhere else. Every token is `[A-Za-z0-9_-]+`, ids come last."""

from typing import Final, NamedTuple

from kitemesh_contracts.errors import ContractViolation
from kitemesh_contracts.ids import is_id

ROOT: Final = "km.v1"

OUT_BLOCK: Final = 512
"""Frames of one attempt that are read again with one question: half of what the server answers at once."""


def _join(*tokens: str) -> str:
    for token in tokens:
        if not is_id(token):
            raise ContractViolation("a subject token is not [A-Za-z0-9_-]{1,64}")
    return ROOT + "." + ".".join(tokens)


def turn_start(turn: str) -> str:
    """Subject of an accepted turn."""
    return _join("turn", "start", turn)


def control_start(turn: str) -> str:
    """Subject of a promoted or re-driven turn."""
    return _join("control", "start", turn)


def control_decide(turn: str) -> str:
    """Subject of a turn whose hold was decided."""
    return _join("control", "decide", turn)


def control_expire(turn: str) -> str:
    """Subject of a turn whose hold has run out."""
    return _join("control", "expire", turn)


def control_cancel(turn: str) -> str:
    """Subject of a stored turn that is to end as cancelled."""
    return _join("control", "cancel", turn)


def event(kind: str, turn: str) -> str:
    """Subject of an event; `kind` is its tag, such as `step.generated`."""
    return _join("event", *kind.split("."), turn)


def model_job(pool: str, priority: str, lane: int, turn: str) -> str:
    """Subject of a model call."""
    return _join("model", pool, priority, str(lane), turn)


def tool_job(pool: str, priority: str, lane: int, turn: str) -> str:
    """Subject of tool calls."""
    return _join("tool", pool, priority, str(lane), turn)


def model_jobs_of(turn: str) -> str:
    """Wildcard over a turn's model calls, in whatever queue they are."""
    return _join("model", "_", "_", "0", turn).replace("._._.0.", ".*.*.*.")


def tool_jobs_of(turn: str, pool: str) -> str:
    """Wildcard over a turn's tool calls in a pool, in whichever of its queues they are."""
    return _join("tool", pool, "_", "0", turn).replace("._.0.", ".*.*.")


def all_tool_jobs_of(turn: str) -> str:
    """Wildcard over a turn's tool calls, in whatever queue they are."""
    return _join("tool", "_", "_", "0", turn).replace("._._.0.", ".*.*.*.")


def events_of(turn: str) -> str:
    """Wildcard over what was told of a turn."""
    return _join("event", "_", "_", turn).replace("._._.", ".*.*.")


def live(gateway: str, turn: str, step: int, attempt: int) -> str:
    """Subject of a classic turn's frames and closing event; core only."""
    return _join("live", gateway, turn, str(step), str(attempt))


def live_turn(turn: str) -> str:
    """Wildcard over a turn's frames and closing event, whichever gateway they are addressed to."""
    if not is_id(turn):
        raise ContractViolation("a subject token is not [A-Za-z0-9_-]{1,64}")
    return f"{ROOT}.live.*.{turn}.>"


def out(gateway: str, turn: str, step: int, attempt: int) -> str:
    """Return what the subjects of a durable attempt's frames begin with; `out_frame` completes it."""
    return _join("out", gateway, turn, str(step), str(attempt))


def out_frame(prefix: str, n: int) -> str:
    """Subject of one frame, given its number and what `out` returned."""
    return f"{prefix}.{(n - 1) // OUT_BLOCK}.{n}"


def out_block(turn: str, step: int, attempt: int, block: int) -> str:
    """Wildcard over one block of an attempt's frames, whichever gateway they were addressed to."""
    return _join("out", "_", turn, str(step), str(attempt), str(block)).replace("._.", ".*.", 1) + ".*"


def out_of(gateway: str) -> str:
    """Wildcard over the frames of durable turns that a gateway accepted."""
    return _join("out", gateway) + ".>"


def out_turn(turn: str) -> str:
    """Wildcard over a durable turn's frames, whichever gateway they are addressed to."""
    if not is_id(turn):
        raise ContractViolation("a subject token is not [A-Za-z0-9_-]{1,64}")
    return f"{ROOT}.out.*.{turn}.>"


def feed(tenant: str, kind: str, about: str) -> str:
    """Subject of the news that something happened; `kind` is such as `turn.ended`, `about` an execution or approval."""
    return _join("feed", tenant, *kind.split("."), about)


def feed_of(tenant: str) -> str:
    """Wildcard over a tenant's news."""
    return _join("feed", tenant) + ".>"


def timer(kind: str, name: str) -> str:
    """Subject under which a scheduled message is kept; a later one of the same name replaces it."""
    return _join("timer", "at", kind, name)


def timer_due(kind: str, name: str) -> str:
    """Subject to which a scheduled message goes when it is due."""
    return _join("timer", "due", kind, name)


def live_of(gateway: str) -> str:
    """Wildcard over everything a gateway relays live."""
    return _join("live", gateway) + ".>"


def cancel(turn: str) -> str:
    """Subject of the broadcast that stops a turn."""
    return _join("ctl", "cancel", turn)


def ask_cancel(turn: str) -> str:
    """Subject of the question which gateway holds a classic turn's client and will cancel it."""
    return _join("ask", "cancel", turn)


ASK_CANCEL_ALL: Final = f"{ROOT}.ask.cancel.*"
CANCEL_ALL: Final = f"{ROOT}.ctl.cancel.*"


def key_changed(key: str) -> str:
    """Subject of the broadcast that a key was revoked or changed."""
    return _join("ctl", "key", key)


KEY_ALL: Final = f"{ROOT}.ctl.key.*"


def tenant_changed(tenant: str) -> str:
    """Subject of the broadcast that something else is said of a tenant; `_default` stands for all of them."""
    return _join("ctl", "tenant", tenant)


TENANT_ALL: Final = f"{ROOT}.ctl.tenant.*"
CATALOG_CHANGED: Final = f"{ROOT}.ctl.catalog.changed"


def beat(service: str, replica: str) -> str:
    """Subject of a replica's sign of life."""
    return _join("beat", service, replica)


def beats_of(service: str) -> str:
    """Wildcard over the signs of life of a service."""
    return _join("beat", service) + ".*"


BEAT_ALL: Final = f"{ROOT}.beat.>"


def dead(stream: str, turn: str) -> str:
    """Subject of a dead letter's reference."""
    return _join("dead", stream, turn)


DEAD_ALL: Final = f"{ROOT}.dead.>"


def dead_of(stream: str) -> str:
    """Wildcard over the references of dead letters of a stream."""
    return _join("dead", stream) + ".*"


class LiveAddress(NamedTuple):
    """What a live subject says."""

    gateway: str
    turn: str
    step: int
    attempt: int


def parse_live(subject: str) -> LiveAddress:
    """Read a live subject.

    Raises:
        ContractViolation: It is none.

    """
    try:
        root, version, kind, gateway, turn, step, attempt = subject.split(".")
        if (root, version, kind) == ("km", "v1", "live"):
            return LiveAddress(gateway, turn, int(step), int(attempt))
    except ValueError as exc:
        raise ContractViolation("not a live subject") from exc
    raise ContractViolation("not a live subject")


def parse_out(subject: str) -> LiveAddress:
    """Read the subject of a durable turn's frame; its number is in the frame as well.

    Raises:
        ContractViolation: It is none.

    """
    try:
        root, version, kind, gateway, turn, step, attempt, _block, _n = subject.split(".")
        if (root, version, kind) == ("km", "v1", "out"):
            return LiveAddress(gateway, turn, int(step), int(attempt))
    except ValueError as exc:
        raise ContractViolation("not the subject of a frame") from exc
    raise ContractViolation("not the subject of a frame")


def last_token(subject: str) -> str:
    """Return the id that a subject ends with."""
    return subject.rsplit(".", 1)[-1]
