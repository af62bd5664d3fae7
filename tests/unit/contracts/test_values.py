"""Ids, subjects, errors, headers, codec and topology as functions of their arguments."""

import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitemesh_contracts import codec, headers, ids, subjects, topology
from kitemesh_contracts.errors import MEANINGS, ContractViolation, ErrorCode


@pytest.mark.requirement("bus:subjects-cannot-be-injected")
@given(st.text(max_size=80))
def test_an_id_is_never_more_than_one_subject_token(text: str) -> None:
    if ids.is_id(text):
        assert text.isascii()
        assert not set(text) & set(".*> \r\n\t")
        assert len(text) <= 64


@pytest.mark.requirement("bus:subjects-cannot-be-injected")
@pytest.mark.parametrize("text", ["", "a.b", "*", ">", "a b", "a\n", "ü", "x" * 65])
def test_what_would_widen_a_subject_is_no_id(text: str) -> None:
    assert not ids.is_id(text)
    for build in (
        subjects.turn_start,
        subjects.control_start,
        subjects.control_decide,
        subjects.control_expire,
        subjects.control_cancel,
        subjects.cancel,
        subjects.ask_cancel,
        subjects.live_turn,
        subjects.model_jobs_of,
        subjects.events_of,
    ):
        with pytest.raises(ContractViolation):
            build(text)
    for turn, pool in ((text, "default"), ("t", text)):
        with pytest.raises(ContractViolation):
            subjects.tool_jobs_of(turn, pool)
    for build_timer in (subjects.timer, subjects.timer_due):
        with pytest.raises(ContractViolation):
            build_timer("hold", text)
        with pytest.raises(ContractViolation):
            build_timer(text, "h-1")


@pytest.mark.parametrize("turn", ["t-1", "_", "0"])
def test_a_turns_wildcards_take_in_everything_of_it_and_no_other_turn(turn: str) -> None:
    assert subjects.live_turn(turn) == f"km.v1.live.*.{turn}.>"
    assert subjects.model_jobs_of(turn) == f"km.v1.model.*.*.*.{turn}"
    assert subjects.tool_jobs_of(turn, "slow") == f"km.v1.tool.slow.*.*.{turn}"
    assert subjects.events_of(turn) == f"km.v1.event.*.*.{turn}"


def test_subjects_fit_into_the_streams_that_keep_them() -> None:
    kept = {subject: stream.name for stream in topology.topology() for subject in stream.subjects}
    assert kept["km.v1.control.*.*"] == topology.CONTROL
    assert kept["km.v1.timer.>"] == topology.TIMER
    for build in (subjects.control_decide, subjects.control_expire, subjects.control_cancel):
        assert build("t").rpartition(".")[0].startswith("km.v1.control.")
    assert subjects.timer("hold", "h") != subjects.timer_due("hold", "h")
    (timers,) = (
        consumer for stream in topology.topology() for consumer in stream.consumers if consumer.name == "timers"
    )
    assert subjects.timer_due("hold", "h").startswith(timers.filter_subject.removesuffix(">"))
    assert not subjects.timer("hold", "h").startswith(timers.filter_subject.removesuffix(">"))


@given(st.integers(min_value=0, max_value=2**48 - 1), st.binary(min_size=10, max_size=10))
def test_a_turn_id_is_a_version_7_uuid_that_sorts_by_time(now_ms: int, entropy: bytes) -> None:
    made = uuid.UUID(ids.uuid7(now_ms, entropy))
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == now_ms


def test_a_repeated_step_proposes_the_same_call_ids() -> None:
    assert ids.call_id("t", 1, 0) == ids.call_id("t", 1, 0)
    assert len({ids.call_id("t", 1, 0), ids.call_id("t", 1, 1), ids.call_id("t", 2, 0), ids.call_id("u", 1, 0)}) == 4


def test_what_follows_from_a_turn_has_the_same_id_again_and_an_id_of_its_own() -> None:
    derived = {
        ids.hold_id("t", 1),
        ids.hold_id("t", 2),
        ids.hold_id("u", 1),
        ids.call_id("t", 1, 0),
        ids.notice_id("h:1", "approval.requested", "w"),
        ids.notice_id("h:1", "approval.requested", "v"),
        ids.notice_id("h:2", "approval.requested", "w"),
        ids.notice_id("h:1", "approval.decided", "w"),
    }
    assert len(derived) == 8
    assert all(ids.is_id(each) and str(uuid.UUID(each)) == each for each in derived)
    assert ids.hold_id("t", 1) == ids.hold_id("t", 1)
    assert ids.notice_id("h", "x", "w") == ids.notice_id("h", "x", "w")


def test_a_live_subject_reads_back_as_it_was_built() -> None:
    assert subjects.parse_live(subjects.live("gw-1", "t-1", 2, 3)) == ("gw-1", "t-1", 2, 3)


@pytest.mark.parametrize(
    "subject", ["", "km.v1.live.g.t.1", "km.v1.live.g.t.x.1", "km.v1.out.g.t.1.1", "a.b.c.d.e.1.1"]
)
def test_a_foreign_subject_is_no_live_subject(subject: str) -> None:
    with pytest.raises(ContractViolation):
        subjects.parse_live(subject)


def test_every_error_code_has_a_meaning() -> None:
    assert set(MEANINGS) == set(ErrorCode)
    assert all(400 <= meaning.status <= 599 for meaning in MEANINGS.values())


@pytest.mark.requirement("attempt:redelivery-has-a-number-of-its-own")
def test_a_job_and_its_next_attempt_have_different_message_ids() -> None:
    assert headers.job_msg_id("t", 1, "model", 0, 1) != headers.job_msg_id("t", 1, "model", 0, 2)
    assert headers.start_msg_id("t", 0) != headers.start_msg_id("t", 1)
    assert headers.hold_msg_id("h", 1) != headers.hold_msg_id("h", 2)


def test_no_two_messages_of_a_turn_share_a_message_id() -> None:
    names = [
        headers.job_msg_id("t", 1, "model", 0, 1),
        headers.job_msg_id("t", 1, "tool", 0, 1),
        headers.job_msg_id("t", 1, "tool", 1, 1),
        headers.classic_result_msg_id("t", 1, "model", 0),
        headers.classic_result_msg_id("t", 1, "tool", 0),
        headers.released_msg_id("t", 1, "model", 0, 1),
        headers.released_msg_id("t", 1, "tool", 1, 1),
        headers.start_msg_id("t"),
        headers.cancel_msg_id("t"),
        headers.hold_msg_id(ids.hold_id("t", 1), 1),
    ]
    assert len(set(names)) == len(names)


@pytest.mark.requirement("contract:bad-bytes")
@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"{}", b'{"type":"nobody"}', b'{"type":"turn.start"}', b"\xff\xfe", b"[" * 5000, b'{"type":"frame"'],
)
def test_bytes_that_are_no_message_violate_the_contract(data: bytes) -> None:
    decoders: tuple[msgspec.json.Decoder[Any], ...] = (
        codec.START,
        codec.GENERATE,
        codec.RUN_CALLS,
        codec.JOB,
        codec.CONTROL,
        codec.DUE,
        codec.CANCEL,
        codec.EVENT,
        codec.RELAYED,
    )
    for decoder in decoders:
        with pytest.raises(ContractViolation):
            codec.decode(decoder, data)


@pytest.mark.requirement("contract:bad-bytes")
@given(st.binary(max_size=200))
def test_no_bytes_make_the_codec_raise_anything_else(data: bytes) -> None:
    try:
        codec.decode(codec.EVENT, data)
    except ContractViolation as exc:
        assert str(len(data)) in exc.message  # noqa: PT017  most bytes raise, some need not


@pytest.mark.requirement("classic:carry-is-untouched")
def test_a_carried_state_passes_through_untouched() -> None:
    carry = msgspec.Raw(b'{"z":1,"a":[1.50]}')
    from contract.messages import GENERATE  # noqa: PLC0415  the examples belong to the contract tests

    sent = codec.encode(msgspec.structs.replace(GENERATE, carry=carry))
    received = codec.decode(codec.GENERATE, sent)
    assert bytes(received.carry) == bytes(carry)


def test_every_stream_subject_is_covered_once() -> None:
    covered = [subject for stream in topology.topology() for subject in stream.subjects]
    assert len(covered) == len(set(covered))


@pytest.mark.requirement("topology:lanes-are-stable")
def test_consumers_of_a_work_queue_never_overlap() -> None:
    pools = (topology.Pool("a", 2), topology.Pool("b", 16))
    for stream in topology.topology(pools, pools):
        filters = [consumer.filter_subject for consumer in stream.consumers]
        assert len(filters) == len(set(filters))
        assert all(consumer.max_ack_pending > 1000 for consumer in stream.consumers)


@pytest.mark.requirement("promise:P24")
def test_a_crash_is_repaired_within_the_promised_ten_seconds() -> None:
    for stream in topology.topology():
        for consumer in stream.consumers:
            assert consumer.ack_wait_s < 10
            assert consumer.max_deliver <= 5
    assert topology.WORKER_HEARTBEAT_S * 2 < topology.WORKER_ACK_WAIT_S


@pytest.mark.requirement("topology:lanes-are-stable")
@given(st.text(max_size=40), st.integers(min_value=1, max_value=64))
def test_a_tenant_keeps_its_lane(tenant: str, lanes: int) -> None:
    lane = topology.lane_of(tenant, lanes)
    assert 0 <= lane < lanes
    assert topology.lane_of(tenant, lanes) == lane
