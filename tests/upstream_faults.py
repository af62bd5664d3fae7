"""What the stub upstream does wrong, and what a client gets for it; `docs/upstreams.md` is the same in words.

The times are short, so that every wait ends within a test.
"""

from typing import Any, Final, NamedTuple

LIMITS: Final[dict[str, float]] = {
    "connect_timeout_s": 1,
    "first_token_timeout_s": 1.5,
    "silence_timeout_s": 1.5,
    "total_timeout_s": 8,
}
RETRIES: Final = 1
WORDS: Final = "w0 w1 w2 w3 w4 "
"""What a whole answer says."""


class Fault(NamedTuple):
    """One thing that an upstream does.

    Attributes:
        plan: What the stub is asked for.
        status: Of an answer that is not streamed.
        calls: That the stub sees of one request, with `RETRIES`.
        begins: Text is shown before it goes wrong.
        elsewhere: Another model of the group answers in its place.
        against: It speaks against the upstream, so that enough of it opens the breaker.
        retry_after: Seconds that a client is told at the least; `None` where it is told nothing in particular.

    """

    plan: str
    status: int
    calls: int = 2
    begins: bool = False
    elsewhere: bool = True
    against: bool = True
    retry_after: int | None = None

    @property
    def code(self) -> str:
        """What a client is told, by status."""
        return {400: "invalid_request_error", 429: "rate_limit_error", 504: "upstream_timeout"}.get(
            self.status, "upstream_error"
        )


FAULTS: Final[dict[str, Fault]] = {
    # Whole answers, strange or late.
    "ok": Fault("ok", 200, 1, against=False),
    "odd": Fault("odd", 200, 1, against=False),
    "no end mark": Fault("unmarked", 200, 1, against=False),
    "429 once, waits 1 s": Fault("limited_once", 200, 2, against=False),
    "503 once, waits 1 s": Fault("overloaded?times=1", 200, 2, against=False),
    "500 once": Fault("broken?times=1", 200, 2, against=False),
    "every second fails": Fault("flapping", 200, 2, against=False),
    # No answer at all.
    "refused connection": Fault("", 502, 0),
    "hangs up": Fault("hang_up", 502),
    "slow headers": Fault("slow_head", 504),
    # Refusals.
    "401": Fault("unauthorized", 502, 1, elsewhere=False, against=False),
    "400": Fault("bad_request", 502, 1, elsewhere=False, against=False),
    "400 of 1 GB": Fault("huge_refusal?line_bytes=1073741824", 502, 1, elsewhere=False, against=False),
    "400 too long": Fault("too_long", 400, 1, against=False),
    "404 of the model": Fault("unknown_model", 502, 1, against=False),
    "redirect": Fault("redirect", 502, 1, elsewhere=False, against=False),
    "429": Fault("limited", 429, against=False, retry_after=1),
    "429, waits 60 s": Fault("limited?retry_after=60", 429, 1, against=False, retry_after=59),
    "500": Fault("broken", 502),
    "503": Fault("failing", 502),
    "503, waits 60 s": Fault("overloaded?retry_after=60", 502, 1, retry_after=59),
    "502 as HTML": Fault("bad_gateway", 502),
    # Answers that break off before their first word.
    "stalled first token": Fault("stalled_first", 504),
    "pings only": Fault("pinging", 504),
    "cut before a word": Fault("reset_first", 502),
    "empty stream": Fault("empty", 502),
    "no body": Fault("silent", 502),
    "error before a word": Fault("error_first", 502),
    "garbage before a word": Fault("garbage?tokens=0", 502, 1),
    "HTML with 200": Fault("html", 502, 1),
    "wrong content type": Fault("not_a_stream", 502, 1),
    "compressed": Fault("encoded", 502, 1),
    # Answers that break off behind it.
    "stalled stream": Fault("stalled", 504, 1, begins=True),
    "empty chunks for ever": Fault("chatter", 504, 1, begins=True),
    "cut": Fault("reset?delay_ms=20", 502, 1, begins=True),
    "no terminator": Fault("unterminated", 502, 1, begins=True),
    "end mark alone": Fault("only_done", 502, 1, begins=True),
    "half a chunk": Fault("half", 502, 1, begins=True),
    "garbage": Fault("garbage", 502, 1, begins=True),
    "error in the stream": Fault("error", 502, 1, begins=True),
    "a line of 1 GB": Fault("huge_line?line_bytes=1073741824", 502, 1, begins=True),
    "a tool nobody offered": Fault("calls", 502, 1, begins=True, against=False),
}
"""By what a person would call it."""


def slug(text: str) -> str:
    """Write a fault's name as a model's id has it."""
    return "".join(each if each.isalnum() else "-" for each in text.lower())


def providers_at(url: str) -> dict[str, Any]:
    """Define the stub as a provider: with a retry, without one, and as an address where nobody listens."""
    stub = {"kind": "openai", "base_url": url, "retries": RETRIES, **LIMITS}
    return {"stub": stub, "once": {**stub, "retries": 0}, "nobody": {**stub, "base_url": "http://127.0.0.1:9/v1"}}


def model_of(fault: Fault, mark: str) -> dict[str, Any]:
    """Define a model with a fault; the stub, and the breaker, take those with other marks for others."""
    if not fault.plan:
        return {"provider": "nobody", "upstream": mark}
    return {"provider": "stub", "upstream": f"{fault.plan}{'&' if '?' in fault.plan else '?'}mark={mark}"}
