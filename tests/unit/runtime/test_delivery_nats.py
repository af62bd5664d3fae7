"""What a delivery reads from its ack subject, and that only its first answer counts."""

from typing import Any, cast

import pytest

from kitemesh_contracts.errors import ContractViolation
from kitemesh_runtime.delivery_nats import AckAddress, NatsDelivery, parse_ack

PLAIN = b"$JS.ACK.KM_MODEL.default-interactive-0.2.17.19.1795296966951651994.3"
ADDRESS = AckAddress("KM_MODEL", "default-interactive-0", 2, 17, 1795296966951651994, 3)


class Wire:
    """Stands for the client: it takes every command."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def offer(self, command: bytes) -> bool:
        self.sent.append(command)
        return True


def delivery(wire: Wire) -> NatsDelivery:
    return NatsDelivery(cast("Any", wire), b"a.b", PLAIN, b"x")


@pytest.mark.parametrize(
    "reply",
    [
        PLAIN,
        PLAIN.replace(b"$JS.ACK.", b"$JS.ACK.hub.ACCHASH."),
        PLAIN.replace(b"$JS.ACK.", b"$JS.ACK._.ACCHASH.") + b".random",
    ],
)
def test_every_form_of_ack_subject_is_read(reply: bytes) -> None:
    assert parse_ack(reply) == ADDRESS


@pytest.mark.parametrize(
    "reply",
    [b"", b"_INBOX.x", b"$JS.ACK.S.c.1.2", PLAIN + b".x", PLAIN.replace(b".2.", b".two."), b"$KV" + PLAIN[3:]],
)
def test_what_is_no_ack_subject_is_a_violation(reply: bytes) -> None:
    with pytest.raises(ContractViolation):
        parse_ack(reply)


def test_a_delivery_knows_its_facts() -> None:
    one = delivery(Wire())
    assert (one.subject, one.data, one.deliveries, one.sequence) == ("a.b", b"x", 2, 17)
    assert one.pending == 3
    assert one.published_at_s == pytest.approx(1795296966.951652)


def test_each_answer_has_its_bytes() -> None:
    for answer, payload in (
        (lambda one: one.ack(), b"+ACK"),
        (lambda one: one.in_progress(), b"+WPI"),
        (lambda one: one.nak(), b"-NAK"),
        (lambda one: one.nak(1.5), b'-NAK {"delay": 1500000000}'),
        (lambda one: one.term("why"), b"+TERM why"),
    ):
        wire = Wire()
        answer(delivery(wire))
        assert wire.sent == [b"PUB %b %d\r\n%b\r\n" % (PLAIN, len(payload), payload)]


def test_only_the_first_final_answer_is_sent() -> None:
    for first in (lambda one: one.ack(), lambda one: one.nak(), lambda one: one.term("x")):
        wire = Wire()
        one = delivery(wire)
        one.in_progress()
        first(one)
        sent = len(wire.sent)
        one.ack()
        one.nak()
        one.term("y")
        one.in_progress()
        assert len(wire.sent) == sent == 2
