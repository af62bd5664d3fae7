import re

import pytest

from kitemesh_contracts import subjects, topology
from kitemesh_contracts.permissions import ANSWERS, SERVICES, ServiceName, bus_rights, inbox_prefix

TURN = "01a202d0-ebfe-74b3-b2b0-1be9a7199ab7"
GATEWAY, ORCHESTRATOR, RUNNER, EXECUTOR = SERVICES
NOBODY: tuple[ServiceName, ...] = ()


def allows(patterns: tuple[str, ...], subject: str) -> bool:
    """Tell whether one of the patterns covers a subject, which may hold wildcards itself."""
    return any(
        re.fullmatch(re.escape(each).replace(r"\*", r"[^.>]+").replace(r"\.>", r"(\.[^.]+)+"), subject)
        for each in patterns
    )


def publishers(subject: str) -> tuple[ServiceName, ...]:
    return tuple(each for each in SERVICES if allows(bus_rights(each).publish, subject))


def listeners(subject: str) -> tuple[ServiceName, ...]:
    return tuple(each for each in SERVICES if allows(bus_rights(each).subscribe, subject))


@pytest.mark.parametrize(
    ("subject", "who"),
    [
        (subjects.turn_start(TURN), (GATEWAY,)),
        (subjects.control_start(TURN), (GATEWAY, ORCHESTRATOR)),
        (subjects.control_decide(TURN), (GATEWAY, ORCHESTRATOR)),
        (subjects.control_cancel(TURN), (GATEWAY,)),
        (subjects.event("step.generated", TURN), (RUNNER,)),
        (subjects.event("step.failed", TURN), (RUNNER,)),
        (subjects.event("step.released", TURN), (RUNNER, EXECUTOR)),
        (subjects.event("call.returned", TURN), (EXECUTOR,)),
        (subjects.model_job("default", "interactive", 0, TURN), (ORCHESTRATOR,)),
        (subjects.tool_job("default", "batch", 3, TURN), (ORCHESTRATOR,)),
        (subjects.timer("hold", TURN), (ORCHESTRATOR,)),
        (subjects.timer_due("hold", TURN), NOBODY),
        (subjects.dead(topology.MODEL, TURN), (ORCHESTRATOR,)),
        (subjects.live("gw", TURN, 0, 1), (ORCHESTRATOR, RUNNER, EXECUTOR)),
        (subjects.live("gw", TURN, 0, 0), SERVICES),
        (subjects.out_frame(subjects.out("gw", TURN, 0, 1), 1), (RUNNER,)),
        (subjects.feed("acme", "turn.accepted", TURN), (GATEWAY, ORCHESTRATOR)),
        (subjects.feed("acme", "feed.mark", "mark"), (GATEWAY,)),
        (subjects.feed("acme", "approval.decided", TURN), (ORCHESTRATOR,)),
        (subjects.cancel(TURN), (GATEWAY, ORCHESTRATOR)),
        (subjects.key_changed("abcdefgh"), (GATEWAY,)),
        (subjects.tenant_changed("acme"), (GATEWAY,)),
        (subjects.CATALOG_CHANGED, NOBODY),
        (subjects.ask_cancel(TURN), (GATEWAY, ORCHESTRATOR)),
        (subjects.beat("gateway", "a"), (GATEWAY,)),
        (subjects.beat("model-runner", "a"), (RUNNER,)),
        (f"{topology.ADVISORY_MAX_DELIVERIES}.KM_TURN.orchestrator-turn", NOBODY),
        ("$JS.API.STREAM.PURGE.KM_TURN", NOBODY),
        ("$JS.API.STREAM.DELETE.KM_OUT", NOBODY),
        ("$JS.API.STREAM.UPDATE.KM_OUT", NOBODY),
        ("$JS.API.STREAM.CREATE.KM_TURN", NOBODY),
        ("$JS.API.STREAM.CREATE.KM_OUT", (ORCHESTRATOR,)),
        ("$JS.API.STREAM.MSG.GET.KM_MODEL", (ORCHESTRATOR,)),
        ("$JS.API.STREAM.INFO.KM_MODEL", (GATEWAY, ORCHESTRATOR)),
        ("$JS.API.STREAM.MSG.DELETE.KM_OUT", NOBODY),
        ("$JS.API.DIRECT.GET.KM_OUT", (GATEWAY, RUNNER)),
        ("$JS.API.DIRECT.GET.KM_FEED", (GATEWAY,)),
        ("$JS.API.DIRECT.GET.KM_EVENT", NOBODY),
        ("$JS.API.CONSUMER.CREATE.KM_MODEL.mine.km.v1.model.>", NOBODY),
        ("$JS.API.CONSUMER.DELETE.KM_MODEL.default-interactive-0", NOBODY),
        ("$JS.API.CONSUMER.MSG.NEXT.KM_TURN.orchestrator-turn", (ORCHESTRATOR,)),
        ("$JS.API.CONSUMER.MSG.NEXT.KM_MODEL.default-interactive-0", (RUNNER,)),
        ("$JS.API.CONSUMER.MSG.NEXT.KM_TOOL.default-interactive-0", (EXECUTOR,)),
        ("$JS.ACK.KM_EVENT.orchestrator-event.1.2.3.4.5", (ORCHESTRATOR,)),
        ("$JS.ACK.KM_MODEL.default-interactive-0.1.2.3.4.5", (RUNNER,)),
        ("$JS.ACK.KM_TOOL.default-interactive-0.1.2.3.4.5", (EXECUTOR,)),
        ("_INBOX.gateway.0123456789abcdef.1", (GATEWAY,)),
        ("_INBOX.orchestrator.0123456789abcdef.1", (ORCHESTRATOR,)),
        (f"_INBOX.orchestrator.{ANSWERS}.0123456789abcdef.1", (GATEWAY, ORCHESTRATOR)),
        (f"_INBOX.model-runner.{ANSWERS}.0123456789abcdef.1", (RUNNER,)),
    ],
)
def test_who_may_say_a_thing_is_who_has_to(subject: str, who: tuple[ServiceName, ...]) -> None:
    assert publishers(subject) == who


@pytest.mark.parametrize(
    ("subject", "who"),
    [
        (subjects.live_of("gw"), (GATEWAY,)),
        (subjects.live_turn(TURN), (GATEWAY,)),
        (subjects.out_of("gw"), (GATEWAY,)),
        (subjects.out_turn(TURN), (GATEWAY,)),
        (subjects.feed_of("acme"), (GATEWAY,)),
        (subjects.ASK_CANCEL_ALL, (GATEWAY,)),
        (subjects.KEY_ALL, (GATEWAY, ORCHESTRATOR)),
        (subjects.CANCEL_ALL, SERVICES),
        (subjects.beats_of("gateway"), SERVICES),
        (subjects.BEAT_ALL, (GATEWAY, ORCHESTRATOR)),
        (subjects.turn_start(TURN), NOBODY),
        (subjects.model_jobs_of(TURN), NOBODY),
        (subjects.tool_jobs_of(TURN, "default"), NOBODY),
        (subjects.events_of(TURN), NOBODY),
        (f"{subjects.ROOT}.>", NOBODY),
        (">", NOBODY),
        ("_INBOX.>", NOBODY),
        ("_INBOX.gateway.>", (GATEWAY,)),
        ("_INBOX.tool-executor.>", (EXECUTOR,)),
    ],
)
def test_who_may_hear_a_thing_is_who_has_to(subject: str, who: tuple[ServiceName, ...]) -> None:
    assert listeners(subject) == who


def test_every_consumer_of_the_topology_belongs_to_one_service_which_may_take_count_and_acknowledge() -> None:
    for stream in topology.topology(model_pools=[topology.Pool("default"), topology.Pool("gpu", lanes=2)]):
        for consumer in stream.consumers:
            place = f"{stream.name}.{consumer.name}"
            takers = publishers(f"$JS.API.CONSUMER.MSG.NEXT.{place}")
            assert len(takers) == 1, place
            lookers = ("gateway",) if stream.retention == "workqueue" else ()
            assert publishers(f"$JS.API.CONSUMER.INFO.{place}") == (*lookers, *takers)
            assert publishers(f"$JS.ACK.{place}.1.1.1.1.1") == takers


def test_the_word_that_begins_what_others_may_answer_on_begins_no_inbox_of_ones_own() -> None:
    assert not re.fullmatch("[0-9a-f]{16}", ANSWERS)
    assert {inbox_prefix(each) for each in SERVICES} == {f"_INBOX.{each}" for each in SERVICES}
