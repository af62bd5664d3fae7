"""How the stub upstream may answer: by name, and by changes of a named one."""

from typing import Final, NamedTuple
from urllib.parse import parse_qsl


class Plan(NamedTuple):
    """How one model name is answered.

    Attributes:
        status: Refuse with this status, the first `times` times; every second time when `times` is -1.
        head_ms: Pause before the status line.
        says: The refusal's own code; `page` is a page of HTML, `line` one line of `line_bytes`.
        then: What follows the tokens: `finish`, `stall`, `reset`, `end` (no finish_reason), `done` (only the end mark),
            `linger`, `close`, `drop` and `babble` (a finish_reason, then nothing, an end, a reset or garbage), `half`
            (the half of a chunk, then an end), `garbage`, `error`, `ping` and `chatter` (comments, or chunks that say
            nothing, for ever), or `line` (one of `line_bytes`).
        variant: `changing` says something else each time; `odd` and `calls` are answers of their own; `silent` has no
            body, `encoded` says that it is compressed, and `hang_up` has not even a status line.
        mark: Means nothing: models that differ in it alone are counted apart.

    """

    status: int = 200
    times: int = 1_000_000
    retry_after: str = ""
    says: str = ""
    head_ms: float = 0.0
    tokens: int = 5
    delay_ms: float = 0.0
    reasoning: int = 0
    finish: str = "stop"
    then: str = "finish"
    media_type: str = "text/event-stream"
    line_bytes: int = 8 * 1024 * 1024
    variant: str = ""
    mark: str = ""


PLANS: Final = {
    "ok": Plan(),
    "unauthorized": Plan(status=401),
    "bad_request": Plan(status=400),
    "redirect": Plan(status=307),
    "limited_once": Plan(status=429, times=1, retry_after="1"),
    "limited": Plan(status=429),
    "failing_once": Plan(status=500, times=1),
    "failing": Plan(status=503),
    "broken": Plan(status=500),
    "overloaded": Plan(status=503, retry_after="1"),
    "bad_gateway": Plan(status=502, says="page"),
    "too_long": Plan(status=400, says="context_length_exceeded"),
    "unknown_model": Plan(status=404, says="model_not_found"),
    "huge_refusal": Plan(status=400, says="line"),
    "hang_up": Plan(variant="hang_up"),
    "flapping": Plan(status=500, times=-1),
    "slow_head": Plan(head_ms=3_600_000),
    "stalled_first": Plan(tokens=0, then="stall"),
    "stalled": Plan(then="stall"),
    "reset_first": Plan(tokens=0, then="reset"),
    "reset": Plan(then="reset"),
    "unterminated": Plan(then="end"),
    "only_done": Plan(then="done"),
    "half": Plan(then="half"),
    "unmarked": Plan(then="close"),
    "empty": Plan(tokens=0, then="end"),
    "silent": Plan(variant="silent"),
    "pinging": Plan(tokens=0, then="ping"),
    "chatter": Plan(then="chatter"),
    "encoded": Plan(variant="encoded"),
    "garbage": Plan(then="garbage"),
    "error_first": Plan(tokens=0, then="error"),
    "error": Plan(then="error"),
    "huge_line": Plan(then="line"),
    "html": Plan(media_type="text/html; charset=utf-8"),
    "not_a_stream": Plan(media_type="application/json"),
    "odd": Plan(variant="odd"),
    "calls": Plan(tokens=1, finish="tool_calls", variant="calls"),
}


def plan_of(name: str) -> Plan:
    """Read a model name."""
    base, _, changes = name.partition("?")
    plan = PLANS.get(base, Plan())
    return plan._replace(**{key: type(getattr(plan, key))(value) for key, value in parse_qsl(changes)})
