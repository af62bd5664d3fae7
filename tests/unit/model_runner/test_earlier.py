"""What is read again of the attempts before one: which attempt, up to where, in which pieces."""

from collections.abc import Sequence

import msgspec
import pytest

from kitemesh_contracts import subjects
from kitemesh_contracts.codec import encode
from kitemesh_contracts.commands import Generate
from kitemesh_contracts.deltas import CallDelta, Delta, Frame, ReasoningDelta, ResultDelta, TextDelta
from kitemesh_contracts.errors import ErrorCode, ProviderFailed, Unavailable
from kitemesh_contracts.subjects import OUT_BLOCK
from kitemesh_contracts.topology import OUT
from kitemesh_model_runner.circuit import Circuit
from kitemesh_model_runner.continuing import find_beginning
from kitemesh_model_runner.earlier import Told, read_earlier
from kitemesh_model_runner.provider import Prefix
from kitemesh_model_runner.provider_fixed import FixedAnswer
from kitemesh_model_runner.provider_scripted import ScriptedModel
from kitemesh_model_runner.routing import Target
from kitemesh_runtime.bus import Stored
from kitemesh_runtime.catalog import FixedProvider, ScriptedProvider

JOB = Generate(
    turn="t",
    tenant="n",
    gateway="g",
    mode="durable",
    step=2,
    attempt=1,
    models=("m",),
    messages=(),
    budget_s=1.0,
    stored=True,
    stream=True,
)
SCRIPTED = Target(
    "m", "m", ScriptedModel(ScriptedProvider(kind="scripted")), Circuit("p", "m", lambda: 0.0), continues=True
)
FIXED = SCRIPTED._replace(model="f", provider=FixedAnswer(FixedProvider(kind="fixed", text="closed")))


class Captured:
    """Holds frames, by the block that they are asked for by."""

    connected = True

    def __init__(self) -> None:
        self.blocks: dict[str, list[bytes]] = {}
        self.asked: list[str] = []
        self.is_up = True

    def keep(self, attempt: int, n: int, *items: Delta) -> None:
        self.keep_bytes(attempt, n, encode(Frame(n=n, offset=0, items=items)))

    def keep_bytes(self, attempt: int, n: int, payload: bytes) -> None:
        block = subjects.out_block("t", 2, attempt, (n - 1) // OUT_BLOCK)
        self.blocks.setdefault(block, []).append(payload)

    async def last_of(self, stream: str, subject: str, *, timeout_s: float = 2.5) -> list[Stored]:
        assert stream == OUT
        assert timeout_s > 0
        if not self.is_up:
            raise Unavailable(ErrorCode.BUS_DOWN, "no leader")
        self.asked.append(subject)
        return [Stored(place, "s", payload) for place, payload in enumerate(self.blocks.get(subject, []), 1)]


@pytest.fixture
def captured() -> Captured:
    return Captured()


def text(words: str) -> TextDelta:
    return TextDelta(text=words)


async def read(captured: Captured, attempt: int) -> Told:
    return await read_earlier(captured, JOB, attempt)  # type: ignore[arg-type]  # it is only read from


async def test_what_the_attempt_before_told_comes_back_each_kind_in_one_piece(captured: Captured) -> None:
    captured.keep(1, 1, ReasoningDelta(text="h"), ReasoningDelta(text="m"))
    captured.keep(1, 2, text("a"))
    captured.keep(1, 3, text("b"), ReasoningDelta(text="?"))
    assert await read(captured, 2) == (ReasoningDelta(text="hm"), text("ab"), ReasoningDelta(text="?"))
    assert captured.asked == [subjects.out_block("t", 2, 1, 0)]


async def test_only_what_stands_before_the_first_missing_frame_counts(captured: Captured) -> None:
    captured.keep(1, 1, text("a"))
    captured.keep(1, 3, text("c"))
    assert await read(captured, 2) == (text("a"),)


async def test_the_order_in_which_frames_were_captured_does_not_matter(captured: Captured) -> None:
    for n in (2, 1, 2):
        captured.keep(1, n, text(str(n)))
    assert await read(captured, 2) == (text("12"),)


async def test_the_newest_attempt_that_told_anything_is_enough(captured: Captured) -> None:
    captured.keep(1, 1, text("old"))
    captured.keep(2, 1, text("newer"))
    captured.keep(3, 2, text("without its beginning"))
    assert await read(captured, 4) == (text("newer"),)
    assert captured.asked == [subjects.out_block("t", 2, attempt, 0) for attempt in (3, 2)]


@pytest.mark.parametrize("frames", [1, OUT_BLOCK - 1, OUT_BLOCK, OUT_BLOCK + 1, 2 * OUT_BLOCK + 3])
async def test_a_long_answer_is_read_block_by_block(captured: Captured, frames: int) -> None:
    for n in range(1, frames + 1):
        captured.keep(1, n, text(f"{n} "))
    assert await read(captured, 2) == (text("".join(f"{n} " for n in range(1, frames + 1))),)
    assert len(captured.asked) == frames // OUT_BLOCK + 1


async def test_where_a_call_was_begun_nothing_is_continued(captured: Captured) -> None:
    captured.keep(1, 1, text("older"))
    captured.keep(2, 1, text("a"))
    captured.keep(2, 2, CallDelta(index=0, name="f"))
    assert await read(captured, 3) == ()


async def test_what_came_of_calls_is_told_by_each_attempt_itself_and_is_no_beginning(captured: Captured) -> None:
    captured.keep(1, 1, ResultDelta(call="c", text="42"))
    captured.keep(1, 2, text("a"))
    captured.keep(2, 1, ResultDelta(call="c", text="42"))
    assert await read(captured, 2) == (text("a"),)
    assert await read(captured, 3) == (text("a"),)


@pytest.mark.parametrize("payload", [b'{"type":"frame.v9"}', b"{", encode(msgspec.Raw(b'{"type":"parcel"}'))])
async def test_a_frame_that_cannot_be_read_counts_as_missing(captured: Captured, payload: bytes) -> None:
    captured.keep(1, 1, text("a"))
    captured.keep_bytes(1, 2, payload)
    captured.keep(1, 3, text("c"))
    assert await read(captured, 2) == (text("a"),)


async def test_where_nothing_is_kept_nothing_is_told(captured: Captured) -> None:
    assert await read(captured, 3) == ()


async def begin(captured: Captured, attempt: int = 2, *targets: Target, job: Generate = JOB) -> object:
    asked = targets or (SCRIPTED,)
    found = await find_beginning(captured, job, attempt, asked, now_s=1.0)  # type: ignore[arg-type]  # only read from
    told, prefix, going = found
    assert going is asked or told
    return (told, prefix, [each.model for each in going]) if targets else (told, prefix)


async def test_a_later_attempt_begins_with_what_an_earlier_one_told(captured: Captured) -> None:
    told: Sequence[Delta] = (ReasoningDelta(text="hm"), text("a"), ReasoningDelta(text="?"), text("b"))
    captured.keep(1, 1, *told)
    assert await begin(captured) == (told, Prefix(text="ab", reasoning="hm?"))


@pytest.mark.parametrize(
    ("attempt", "target", "changes"),
    [
        (1, SCRIPTED, {}),
        (2, SCRIPTED._replace(continues=False), {}),
        (2, SCRIPTED, {"mode": "classic"}),
        (2, SCRIPTED, {"stream": False}),
    ],
    ids=["a first attempt", "a model that cannot", "a classic job", "nobody reads"],
)
async def test_what_does_not_continue_reads_nothing(
    captured: Captured, attempt: int, target: Target, changes: dict[str, object]
) -> None:
    captured.keep(1, 1, text("a"))
    job = msgspec.structs.replace(JOB, **changes)
    assert await begin(captured, attempt, target, job=job) == ((), None, ["m"])
    assert captured.asked == []


async def test_what_the_provider_cannot_go_on_with_is_not_told(captured: Captured) -> None:
    captured.keep(1, 1, text("a"))
    assert await begin(captured, 2, FIXED) == ((), None, ["f"])


async def test_only_those_who_can_go_on_with_what_was_told_are_asked(captured: Captured) -> None:
    captured.keep(1, 1, text("a"))
    anew = SCRIPTED._replace(model="a", continues=False)
    second = SCRIPTED._replace(model="s")
    said = ((text("a"),), Prefix(text="a"), ["m", "s"])
    assert await begin(captured, 2, anew, FIXED, SCRIPTED, second) == said


async def test_the_answer_is_begun_anew_while_nobody_who_can_go_on_may_be_asked(captured: Captured) -> None:
    captured.keep(1, 1, text("a"))
    limited = ProviderFailed(ErrorCode.UPSTREAM_LIMITED, "later", retry_after_s=9.0)
    resting = SCRIPTED._replace(circuit=Circuit("p", "r", lambda: 0.0))
    resting.circuit.leave(1, 0.0, limited)
    anew = SCRIPTED._replace(model="a", continues=False)
    assert await begin(captured, 2, resting, anew) == ((), None, ["m", "a"])
    # Nobody is asked then, and what was told stays.
    assert await begin(captured, 2, resting) == ((text("a"),), Prefix(text="a"), ["m"])


async def test_while_the_captured_frames_cannot_be_read_the_answer_is_begun_anew(captured: Captured) -> None:
    captured.is_up = False
    assert await begin(captured) == ((), None)


async def test_while_the_bus_is_away_a_later_attempt_waits(captured: Captured) -> None:
    captured.is_up = captured.connected = False
    with pytest.raises(Unavailable):
        await begin(captured)
