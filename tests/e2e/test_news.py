"""What a cluster of real processes tells of its turns: the feed, and where their time went."""

import http.client
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cluster import Cluster, events


@contextmanager
def feed(cluster: Cluster) -> Iterator[Iterator[dict[str, Any]]]:
    """Read the tenant's news while inside."""
    connection = http.client.HTTPConnection("127.0.0.1", int(cluster.origin.rsplit(":", 1)[1]), timeout=10)
    connection.request("GET", "/v1/events?types=turn.*", headers={"Authorization": f"Bearer {cluster.key}"})
    try:
        response = connection.getresponse()
        assert response.status == 200
        lines = (response.readline().decode() for _ in iter(int, 1))
        # The first event names the reader's place: what happens from now on is told.
        while next(lines).strip():
            pass
        yield (json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: "))
    finally:
        connection.close()


@pytest.mark.requirement("events:tell-without-content")
@pytest.mark.parametrize("mode", ["classic", "durable"])
def test_the_feed_tells_of_every_turn(cluster: Cluster, mode: str) -> None:
    with feed(cluster) as told:
        execution = cluster.chat("@echo secret words", metadata={"mode": mode}).headers["x-execution-id"]
        found = []
        while not found or found[-1]["type"] != "turn.ended":
            item = next(told)
            if item["execution_id"] == execution:
                found.append(item)
    types = [item["type"] for item in found]
    assert types == (["turn.ended"] if mode == "classic" else ["turn.accepted", "turn.ended"])
    assert (found[-1]["status"], found[-1]["mode"]) == ("completed", mode)
    assert "secret" not in json.dumps(found)


@pytest.mark.requirement("http:server-timing")
@pytest.mark.parametrize("mode", ["classic", "durable"])
def test_an_answer_says_where_its_time_went(cluster: Cluster, mode: str) -> None:
    whole = cluster.chat("@echo Hi", metadata={"mode": mode})
    header = {name.lower(): value for name, value in whole.headers.items()}["server-timing"]
    told = {hop: float(ms) for hop, ms in re.findall(r"(\w+);dur=([0-9.]+)", header)}
    assert {"gateway", "orchestrator", "store", "relay", "total"} <= set(told)
    # The gateway's part ends with an acknowledgement, which may come when an orchestrator has the start already.
    later_ms = sum(ms for hop, ms in told.items() if hop not in {"gateway", "total"})
    # Queues are timed by two clocks, of one machine here.
    assert max(told["gateway"], later_ms) <= told["total"] + 5
    *_, last = events(cluster.chat("@echo Hi", stream=True, metadata={"mode": mode}).body)
    timings = last["kitemesh"]["timings"]
    assert timings["orchestrator"] > 0
    assert ("store" in timings) == (mode == "classic")
