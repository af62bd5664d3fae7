"""The NATS protocol as bytes."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitemesh_contracts.errors import ContractViolation
from kitemesh_runtime import wire_nats
from kitemesh_runtime.wire_nats import WireError, WireParser


class Message(NamedTuple):
    sid: bytes
    subject: bytes
    reply: bytes
    headers: bytes | None
    payload: bytes


class Recorder:
    """Everything a parser hands on, in order."""

    def __init__(self, sids: tuple[bytes, ...] = (b"1", b"2")) -> None:
        self.seen: list[object] = []
        self.failures: list[tuple[bytes, Exception]] = []
        self.receivers = {sid: self._receiver(sid) for sid in sids}
        self.parser = WireParser(
            self.receivers,
            on_control=self.seen.append,
            on_stray=lambda *message: self.seen.append(("stray", *message)),
            on_failure=lambda subject, exc: self.failures.append((subject, exc)),
        )

    def _receiver(self, sid: bytes) -> wire_nats.Receiver:
        return lambda *message: self.seen.append(Message(sid, *message))


def encode(message: Message) -> bytes:
    reply = message.reply + b" " if message.reply else b""
    if message.headers is None:
        head = b"MSG %b %b %b%d\r\n" % (message.subject, message.sid, reply, len(message.payload))
        return head + message.payload + b"\r\n"
    sizes = b"%d %d" % (len(message.headers), len(message.headers) + len(message.payload))
    head = b"HMSG %b %b %b%b\r\n" % (message.subject, message.sid, reply, sizes)
    return head + message.headers + message.payload + b"\r\n"


subjects = st.from_regex(r"\A[A-Za-z0-9_.$-]{1,40}\Z").map(str.encode)
blocks = st.binary(max_size=30).map(lambda text: b"NATS/1.0\r\nk: " + text.replace(b"\r", b"") + b"\r\n\r\n")
payloads = st.one_of(st.binary(max_size=300), st.sampled_from([b"", b"\r\n", b"MSG a 1 3\r\nPING\r\n", b"x" * 5000]))
messages = st.builds(
    Message,
    sid=st.sampled_from([b"1", b"2"]),
    subject=subjects,
    reply=st.one_of(st.just(b""), subjects),
    headers=st.one_of(st.none(), blocks),
    payload=payloads,
)
controls = st.sampled_from([b"PING", b"PONG", b"+OK", b"-ERR 'Permissions Violation'", b'INFO {"a":1}'])


@given(st.lists(st.one_of(messages, controls), max_size=12), st.data())
def test_the_same_messages_come_out_wherever_the_stream_is_split(items: list[object], data: st.DataObject) -> None:
    stream = b"".join(encode(item) if isinstance(item, Message) else item + b"\r\n" for item in items)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    recorder = Recorder()
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        recorder.parser.feed(stream[start:stop])
    assert recorder.seen == items
    assert recorder.failures == []


def test_a_stream_cut_into_single_bytes_is_read() -> None:
    message = Message(b"1", b"a.b", b"r", b"NATS/1.0\r\nk: v\r\n\r\n", b"\r\n\r\n")
    recorder = Recorder()
    for byte in encode(message) + b"PING\r\n":
        recorder.parser.feed(bytes([byte]))
    assert recorder.seen == [message, b"PING"]


def test_a_message_without_a_receiver_goes_to_the_stray_function() -> None:
    recorder = Recorder(sids=())
    recorder.parser.feed(b"MSG a 7 r 2\r\nhi\r\n")
    assert recorder.seen == [("stray", b"7", b"a", b"r", None, b"hi")]


def test_a_receiver_that_raises_is_reported_and_the_next_message_arrives() -> None:
    recorder = Recorder()
    error = RuntimeError("mine")

    def broken(*_message: object) -> None:
        raise error

    recorder.receivers[b"1"] = broken
    recorder.parser.feed(b"MSG a 1 1\r\nx\r\nMSG b 2 1\r\ny\r\n")
    assert recorder.failures == [(b"a", error)]
    assert recorder.seen == [Message(b"2", b"b", b"", None, b"y")]


@pytest.mark.parametrize(
    "stream",
    [
        b"MSG a 1\r\n",
        b"MSG a 1 -1\r\n",
        b"MSG a 1 r x\r\n",
        b"MSG a 1 r 1 1\r\n",
        b"MESSAGE a 1 1\r\n",
        b"HMSG a 1 3\r\n",
        b"HMSG a 1 9 3\r\n",
        b"HMSG a 1 r x 3\r\n",
        b"M\r\n",
        b"x" * (wire_nats.LINE_MAX_BYTES + 1),
    ],
)
def test_bytes_that_are_no_protocol_are_refused(stream: bytes) -> None:
    with pytest.raises(WireError):
        Recorder().parser.feed(stream)


@pytest.mark.requirement("bus:subjects-cannot-be-injected")
@pytest.mark.parametrize("subject", ["", "a b", "a\r\nPUB b 0\r\n", "a\n", "\ta", "a\x00b", "ä", "a\u2028b"])
def test_nothing_that_could_end_a_control_line_reaches_the_wire(subject: str) -> None:
    with pytest.raises(ContractViolation):
        wire_nats.pub(subject, b"")
    with pytest.raises(ContractViolation):
        wire_nats.hpub("a", b"", reply="r", header="Nats-Msg-Id", value=subject)


def test_publications_have_the_bytes_of_the_protocol() -> None:
    assert wire_nats.pub("a.b", b"hi") == b"PUB a.b  2\r\nhi\r\n"
    assert wire_nats.pub("a.b", b"", "r") == b"PUB a.b r 0\r\n\r\n"
    block = b"NATS/1.0\r\nNats-Msg-Id: 1\r\n\r\n"
    assert wire_nats.hpub("a", b"hi", reply="r", header="Nats-Msg-Id", value="1") == (
        b"HPUB a r %d %d\r\n%bhi\r\n" % (len(block), len(block) + 2, block)
    )


def test_a_status_and_its_words_and_headers_are_read() -> None:
    block = b"NATS/1.0 409 Consumer Deleted\r\nNats-Pending-Messages: 7\r\nOther:x\r\n\r\n"
    assert wire_nats.status_of(block) == 409
    assert wire_nats.status_text(block) == "Consumer Deleted"
    assert wire_nats.header_of(block, "nats-pending-messages") == "7"
    assert wire_nats.header_of(block, "Other") == "x"
    assert wire_nats.header_of(block, "Missing") is None
    assert wire_nats.status_of(b"NATS/1.0 503\r\n\r\n") == 503
    assert wire_nats.status_of(b"NATS/1.0\r\nk: v\r\n\r\n") == 0
    assert wire_nats.status_of(None) == 0


PLACE = b"Nats-Stream: S\r\nNats-Subject: a.b\r\nNats-Sequence: 12\r\nNats-Time-Stamp: 2026-01-01T00:00:00Z\r\n"


def test_the_place_of_a_message_that_was_looked_up_is_read_from_the_server_s_own_lines() -> None:
    block = b"NATS/1.0\r\n" + PLACE + b"Nats-Num-Pending: 3\r\nNats-Last-Sequence: 7\r\n\r\n"
    assert wire_nats.place_of(block) == ("a.b", 12, 7)
    forged = b"NATS/1.0\r\nNats-Subject: x\r\nNats-Sequence: 99\r\nNats-Last-Sequence: 98\r\n"
    assert wire_nats.place_of(forged + block.removeprefix(b"NATS/1.0\r\n")) == ("a.b", 12, 7)


@pytest.mark.parametrize(
    "block",
    [
        b"NATS/1.0\r\n\r\n",
        b"NATS/1.0\r\nNats-Subject: a",
        b"NATS/1.0\r\n" + PLACE + b"\r\n",
        b"NATS/1.0\r\n" + PLACE + b"Nats-Last-Sequence: x\r\n\r\n",
    ],
)
def test_headers_that_do_not_say_the_place_are_refused(block: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  whichever line is missing, the answer was not understood
        wire_nats.place_of(block)
