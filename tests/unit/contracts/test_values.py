"""Ids, subjects, errors, headers, codec and topology as functions of their arguments."""

import uuid

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
    with pytest.raises(ContractViolation):
        subjects.turn_start(text)


@given(st.integers(min_value=0, max_value=2**48 - 1), st.binary(min_size=10, max_size=10))
def test_a_turn_id_is_a_version_7_uuid_that_sorts_by_time(now_ms: int, entropy: bytes) -> None:
    made = uuid.UUID(ids.uuid7(now_ms, entropy))
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == now_ms


def test_a_repeated_step_proposes_the_same_call_ids() -> None:
    assert ids.call_id("t", 1, 0) == ids.call_id("t", 1, 0)
    assert len({ids.call_id("t", 1, 0), ids.call_id("t", 1, 1), ids.call_id("t", 2, 0), ids.call_id("u", 1, 0)}) == 4


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


@pytest.mark.requirement("contract:bad-bytes")
@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"{}", b'{"type":"nobody"}', b'{"type":"turn.start"}', b"\xff\xfe", b"[" * 5000, b'{"type":"frame"'],
)
def test_bytes_that_are_no_message_violate_the_contract(data: bytes) -> None:
    for decoder in (codec.START, codec.GENERATE, codec.RUN_CALLS, codec.CANCEL, codec.EVENT, codec.RELAYED):
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
