"""Ambiguous calls: off unless asked for, run before they are told as timed out, and drawn from a seed."""

import asyncio
import subprocess
import sys
from typing import cast

import pytest

from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_runtime import ambiguity
from kitemesh_runtime.ambiguity import Doubt, Odds, doubtful_bus, doubtful_stores
from kitemesh_runtime.bus import Bus, Receipt
from kitemesh_runtime.stores_memory import memory_stores

ALWAYS = Odds(1, 1.0)
NEVER = Odds(1, 0.0)
SCRIPT = "from kitemesh_runtime.ambiguity import doubt_of; print(doubt_of('gateway/a') is None)"


class Noted:
    """A bus that notes what it was asked."""

    def __init__(self) -> None:
        self.connected = True
        self.done: list[str] = []
        self.twice = asyncio.Event()

    async def send(self, subject: str, payload: bytes, *, msg_id: str) -> Receipt:
        self.done.append(f"send {subject} {payload!r} {msg_id}")
        return Receipt(7, duplicate=False)

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        return payload

    def post(self, subject: str, payload: bytes) -> None:
        self.done.append(f"post {subject}")
        if len(self.done) == 2:
            self.twice.set()


def bus_of(noted: Noted, odds: Odds) -> Bus:
    return doubtful_bus(cast("Bus", noted), Doubt(odds, "gateway/a"))


@pytest.mark.parametrize(("value", "is_off"), [("", "True"), ("7:5", "False")])
def test_nothing_is_in_doubt_unless_the_environment_says_so(value: str, is_off: str) -> None:
    environ = {"KITEMESH_AMBIGUITY": value} if value else {}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environ)
    assert done.stdout.splitlines()[-1] == is_off


@pytest.mark.parametrize("text", ["7", "x:5", "7:", "7:101", "7:-1", "7:5:5"])
def test_a_wrong_value_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="ambiguity"):
        ambiguity.parse(text)


async def test_a_write_happens_and_is_told_as_timed_out() -> None:
    plain = memory_stores()
    stores = doubtful_stores(plain, Doubt(ALWAYS, "gateway/a"))
    with pytest.raises(Unavailable) as caught:
        await stores.claims.claim("t1", "idem-x", "value", "turn-1")
    assert caught.value.code is ErrorCode.STORE_DOWN
    assert (await plain.claims.claim("t1", "idem-x", "value", "turn-2")).turn == "turn-1"


async def test_a_store_in_no_doubt_answers_as_it_does() -> None:
    stores = doubtful_stores(memory_stores(), Doubt(NEVER, "gateway/a"))
    assert (await stores.claims.claim("t1", "idem-x", "value", "turn-1")).won


async def test_a_message_is_sent_and_told_as_timed_out() -> None:
    noted = Noted()
    with pytest.raises(Unavailable) as caught:
        await bus_of(noted, ALWAYS).send("a.b", b"x", msg_id="1")
    assert caught.value.code is ErrorCode.BUS_DOWN
    assert noted.done == ["send a.b b'x' 1"]
    assert (await bus_of(noted, NEVER).send("a.b", b"x", msg_id="2")).sequence == 7


async def test_a_request_and_what_is_no_call_are_passed_through() -> None:
    bus = bus_of(Noted(), ALWAYS)
    assert await bus.request("a.b", b"x", timeout_s=1) == b"x"
    assert bus.connected


async def test_a_post_goes_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ambiguity, "AGAIN_S", 0.01)
    noted = Noted()
    bus_of(noted, ALWAYS).post("a.b", b"x")
    assert noted.done == ["post a.b"]
    async with asyncio.timeout(5):
        await noted.twice.wait()
    assert noted.done == ["post a.b", "post a.b"]


def test_each_process_draws_from_the_seed_and_its_name() -> None:
    def draws(odds: Odds, name: str) -> list[bool]:
        doubt = Doubt(odds, name)
        return [doubt.strikes() for _ in range(200)]

    odds = Odds(3, 0.05)
    assert draws(odds, "a") == draws(odds, "a")
    assert draws(odds, "a") != draws(odds, "b")
    assert draws(odds, "a") != draws(Odds(4, 0.05), "a")
    assert 0 < sum(draws(odds, "a")) < 40
