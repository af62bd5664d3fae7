"""A model that writes whatever it likes: it runs nothing that the agent has not, and nothing held unapproved."""

from typing import Any, Final

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from kitemesh_contracts import canonical
from kitemesh_contracts.content import CallResult, ToolCall
from kitemesh_contracts.ids import call_id, hold_id
from kitemesh_orchestrator import judging
from kitemesh_orchestrator.happenings import Command, HoldAnswered, Publish, StepAnswered, TurnSeated
from kitemesh_orchestrator.states import Accepted, Asked, Calling, Ended, Generating, State
from kitemesh_orchestrator.turn import decide
from kitemesh_runtime import schemas
from unit.orchestrator.catalogs import TOOLS, catalog, client_tool, helper
from unit.orchestrator.turns import START, generated, returned, verdict

STEPS, CALLS, PARALLEL = 4, 5, 3
CATALOG: Final = catalog(steps=STEPS, calls=CALLS, parallel=PARALLEL)
AGENT: Final = helper(CATALOG)
HELD: Final = {"pay", "drop"}
FORBIDDEN: Final = {"format_disk", "launch", "draw"}
ASKING: Final = msgspec.structs.replace(START, tools=(client_tool("draw"), client_tool("pay")))

names = st.one_of(
    st.sampled_from([*TOOLS, "launch", "draw"]),
    st.sampled_from(["Read", "read ", " read", "read\n", "read\x00", "read.pay", "*", "rea?", "pay*", "", "__class__"]),
    st.text(max_size=80),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
arguments = st.one_of(
    st.sampled_from(
        [
            "",
            "{}",
            '{"amount":1}',
            '{"amount":1,"card_token":"x"}',
            '{"amount":"1"}',
            '{"amount":1,"amount":2}',
            '{"amount":1e400}',
            '{"amount":NaN}',
            '{"page":"\\ud800"}',
            '{"page":' * 40 + "1" + "}" * 40,
            "[" * 5000,
            "null",
            '{"page":"{{page}}"}',
        ]
    ),
    values.map(lambda value: msgspec.json.encode(value).decode()),
    st.text(max_size=30),
)
wishes = st.lists(st.tuples(names, arguments), max_size=6)


class Executor:
    """Runs whatever it is told to, and remembers it."""

    def __init__(self) -> None:
        self.runs: dict[str, Asked] = {}
        self.models = 0
        self.runs_of_step: dict[int, int] = {}

    def take(self, state: State, commands: tuple[Command, ...]) -> None:
        for command in commands:
            if not isinstance(command, Publish):
                continue
            if command.job.kind == "model":
                self.models += 1
                continue
            assert isinstance(state, Calling)
            for asked in state.asked:
                if asked.id in command.job.calls:
                    assert asked.id not in self.runs
                    self.runs[asked.id] = asked
                    self.runs_of_step[command.job.step] = self.runs_of_step.get(command.job.step, 0) + 1


def a_model_writes(state: Generating, wish: list[tuple[str, str]], text: str) -> StepAnswered:
    calls = tuple(
        ToolCall(id=call_id(START.turn, state.step, index), name=name, arguments=each)
        for index, (name, each) in enumerate(wish)
    )
    judged = judging.judge(calls, state.start, AGENT, CATALOG, made=state.calls_made, check=schemas.problems)
    assert [ruling.asked.id for ruling in judged.rulings] == [call.id for call in calls]
    assert (judged.terms is not None) == any(ruling.asked.do == "hold" for ruling in judged.rulings)
    return StepAnswered(
        generated=generated(text, calls, step=state.step, attempt=state.attempt),
        rulings=judged.rulings,
        limits=judging.limits_of(AGENT),
        hold=hold_id(START.turn, state.step),
        offered=True,
    )


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_hostile_model_runs_nothing_that_it_may_not(data: st.DataObject) -> None:
    executor, approved = Executor(), dict[str, str]()
    state: State = Accepted(start=ASKING)
    event: Any = TurnSeated(ordinal=1)
    while not isinstance(state, Ended):
        state, commands = decide(state, event)
        executor.take(state, commands)
        if isinstance(state, Generating):
            event = a_model_writes(state, data.draw(wishes), data.draw(st.text(max_size=5)))
        elif isinstance(state, Calling) and state.paused:
            assert state.hold is not None
            yes = [call for call in state.undecided if data.draw(st.booleans())]
            approved |= {call.id: call.arguments for call in yes}
            answers = tuple(
                verdict(call.id, approved=True, arguments=call.arguments, name=call.name, version=call.version)
                for call in yes
            )
            event = HoldAnswered(hold=state.hold, answers=answers, expired=True)
        elif isinstance(state, Calling):
            job = state.jobs[0]
            results = (CallResult(call=name, text=data.draw(st.text(max_size=5))) for name in job.calls)
            event = returned(*results, step=job.step, job=job.index)
    ran = executor.runs.values()
    assert {asked.name for asked in ran} <= set(AGENT.tools) - FORBIDDEN
    assert all(asked.arguments == approved.get(asked.id) for asked in ran if asked.name in HELD)
    for asked in ran:
        assert asked.arguments == canonical.canonical(asked.arguments)
        assert asked.sha256 == canonical.sha256(asked.arguments)
        assert schemas.problems(CATALOG.tools[asked.name].parameters, msgspec.json.decode(asked.arguments)) == []
    assert len(ran) <= CALLS
    assert max(executor.runs_of_step.values(), default=0) <= PARALLEL
    assert executor.models <= STEPS
