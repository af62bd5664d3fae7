"""Dead letters read from the real server, between advisories and gaps."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from integration.bus.rig import OwnServer
from kitemesh_contracts import subjects, topology
from kitemesh_contracts.codec import encode
from kitemesh_runtime import dead_letters_nats
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.dead_letters_nats import NatsDeadLetters
from kitemesh_runtime.dead_nats import DeadLetter
from kitemesh_runtime.topology_nats import apply


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[NatsBus]:
    server = OwnServer(tmp_path)
    try:
        async with open_bus(server.url, name="letters") as opened:
            await apply(opened, [each for each in topology.topology() if each.name == topology.DEAD], replicas=1)
            yield opened
    finally:
        server.kill()


async def bury(bus: NatsBus, n: int, stream: str = topology.MODEL) -> int:
    """Keep a letter; return its number."""
    letter = DeadLetter(
        stream=stream,
        consumer="c",
        sequence=n,
        subject=subjects.model_job("default", "batch", 0, f"turn-{n}") if stream == topology.MODEL else "",
        msg_id="",
        deliveries=4,
        reason="poison",
        at="2026-01-01T00:00:00Z",
    )
    kept = await bus.send(subjects.dead(stream, f"turn-{n}"), encode(letter), msg_id=f"dead-{n}")
    return kept.sequence


async def advise(bus: NatsBus, n: int) -> int:
    """Keep something that is no letter."""
    kept = await bus.send(f"{topology.ADVISORY_TERMINATED}.KM_MODEL.c{n}", b"{}", msg_id=f"advice-{n}")
    return kept.sequence


async def test_pages_are_newest_first_without_what_is_no_letter(bus: NatsBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters_nats, "WINDOW", 3)
    letters = NatsDeadLetters(bus)
    assert (await letters.count(), await letters.page(stream=None, before=None, limit=5)) == (0, [])
    numbers = []
    for n in range(12):
        await advise(bus, n)
        numbers.append(await bury(bus, n, topology.TOOL if n % 4 == 0 else topology.MODEL))
    assert await letters.count() == 12
    first = await letters.page(stream=None, before=None, limit=5)
    assert [each.number for each in first] == numbers[:-6:-1]
    assert (first[0].turn, first[0].stream, first[0].reason, first[0].deliveries) == (
        "turn-11",
        topology.MODEL,
        "poison",
        4,
    )
    rest = await letters.page(stream=None, before=first[-1].number, limit=100)
    assert [each.number for each in (*first, *rest)] == numbers[::-1]
    tools = await letters.page(stream=topology.TOOL, before=None, limit=2)
    assert [each.number for each in tools] == [numbers[8], numbers[4]]
    assert tools[0].turn == ""


async def test_a_letter_is_removed_once_and_an_advisory_is_none(bus: NatsBus) -> None:
    letters = NatsDeadLetters(bus)
    advice, number = await advise(bus, 1), await bury(bus, 1)
    found = await letters.get(number)
    assert found is not None
    assert found.number == number
    assert await letters.get(advice) is None
    assert await letters.get(number + 50) is None
    await letters.remove(number)
    await letters.remove(number)
    assert await letters.get(number) is None
    assert await letters.count() == 0
    assert await letters.page(stream=None, before=None, limit=5) == []
