"""Runs that are accepted and go on without their client: polled, followed, listed and cancelled at another gateway."""

import concurrent.futures
import json
import uuid
from typing import Any

import pytest

from cluster import GROUP, Cluster, Reply, events
from tool_cluster import Gateway, cancel, ended, execution, until

RUNS = "/v1/executions"
LONG = "@delay_ms 50\n@count 400"


def run(gateway: Cluster, text: str, *, idempotency: str = "", **metadata: str) -> Reply:
    """Ask for a background run."""
    body = {"model": GROUP, "messages": [{"role": "user", "content": text}], "metadata": metadata}
    headers = {"Idempotency-Key": idempotency} if idempotency else {}
    return gateway.call(RUNS, body, headers=headers)


def begun(gateway: Cluster, text: str, **metadata: str) -> dict[str, Any]:
    """Begin a run and return what was told of it."""
    reply = run(gateway, text, **metadata)
    assert reply.status == 202, reply.body
    return dict(reply.json())


def pages(gateway: Cluster, query: str) -> list[str]:
    """Read every page of the list and return the ids."""
    found: list[str] = []
    cursor = ""
    while True:
        reply = gateway.call(f"{RUNS}?{query}{cursor}")
        assert reply.status == 200, reply.body
        page = reply.json()
        found += [each["id"] for each in page["data"]]
        if page["next_cursor"] is None:
            return found
        assert page["data"]
        cursor = f"&cursor={page['next_cursor']}"


@pytest.mark.requirement("background:accepted-once-stored", "background:durable", "durable:visible-at-once")
def test_a_run_is_accepted_at_once_and_found_finished_later_at_another_gateway(
    cluster: Cluster, elsewhere: Gateway
) -> None:
    reply = run(cluster, "@first_ms 700\n@count 5", request_id="mine")
    told = reply.json()
    assert (reply.status, reply.headers["Location"]) == (202, f"{RUNS}/{told['id']}")
    assert reply.headers["x-execution-id"] == told["id"]
    shown = execution(elsewhere, told["id"])
    assert (shown["mode"], shown["status"] in {"queued", "running"}) == ("durable", True)
    assert shown["conversation_id"] == told["conversation_id"]
    until(lambda: execution(elsewhere, told["id"])["status"] == "running")
    found = ended(elsewhere, told["id"], "completed")
    assert found["steps"][-1]["text"] == "1 2 3 4 5 "
    assert found["usage"]["output_tokens"] == 5


@pytest.mark.requirement("background:durable", "executions:stream", "executions:native-events")
def test_a_run_is_followed_while_it_runs_and_when_it_is_over(cluster: Cluster, elsewhere: Gateway) -> None:
    run_id = begun(cluster, "@delay_ms 30\n@count 12", request_id="mine")["id"]
    streams = [gateway.call(f"{RUNS}/{run_id}/stream") for gateway in (elsewhere, cluster)]
    assert [stream.status for stream in streams] == [200, 200]
    assert streams[0].body == streams[1].body
    told = events(streams[0].body)
    assert (told[0]["type"], told[0]["request_id"]) == ("turn.started", "mine")
    assert "".join(each["text"] for each in told[1:-1]) == "".join(f"{n} " for n in range(1, 13))
    assert (told[-1]["type"], told[-1]["status"]) == ("turn.ended", "completed")


@pytest.mark.requirement("executions:list")
def test_runs_are_listed_newest_first_by_what_is_asked_for(cluster: Cluster, elsewhere: Gateway) -> None:
    first = begun(cluster, "@count 1")
    conversation = first["conversation_id"]
    ended(cluster, first["id"], "completed")
    failed = begun(elsewhere, "@fail upstream.failed", conversation_id=conversation)["id"]
    ended(cluster, failed, "failed")
    running = begun(elsewhere, LONG, conversation_id=conversation)["id"]
    until(lambda: execution(cluster, running)["status"] == "running")
    waiting = begun(cluster, "@count 2", conversation_id=conversation)["id"]
    everything = [waiting, running, failed, first["id"]]
    for gateway in (cluster, elsewhere):
        for more in ("", "&limit=1", "&limit=3"):
            assert pages(gateway, f"conversation_id={conversation}{more}") == everything
        for status, found in (
            ("queued", [waiting]),
            ("running", [running]),
            ("completed", [first["id"]]),
            ("failed", [failed]),
            ("held", []),
        ):
            assert pages(gateway, f"conversation_id={conversation}&status={status}") == found
    newest = cluster.call(f"{RUNS}?limit=2").json()
    assert [each["id"] for each in newest["data"]] == [waiting, running]
    for each in (waiting, running):
        assert cancel(elsewhere, each).status == 200


@pytest.mark.requirement("background:durable", "cancel:waiting", "cancel:idempotent")
def test_a_run_is_cancelled_from_another_gateway_while_it_waits_and_while_it_runs(
    cluster: Cluster, elsewhere: Gateway
) -> None:
    running = begun(cluster, LONG)
    until(lambda: execution(cluster, running["id"])["status"] == "running")
    waiting = begun(cluster, "@echo never said", conversation_id=running["conversation_id"])
    assert execution(elsewhere, waiting["id"])["status"] == "queued"
    with concurrent.futures.ThreadPoolExecutor(2) as readers:
        reading = {
            each["id"]: readers.submit(elsewhere.call, f"{RUNS}/{each['id']}/stream") for each in (running, waiting)
        }
        for each in (waiting, running):
            done = cancel(elsewhere, each["id"])
            assert (done.status, done.json()["id"]) == (200, each["id"])
        told = {run_id: events(reader.result(timeout=20).body) for run_id, reader in reading.items()}
    for each in (waiting, running):
        assert told[each["id"]][-1]["status"] == "cancelled"
        shown = ended(cluster, each["id"], "cancelled")
        assert cancel(cluster, each["id"]).status == 200
        if each is waiting:
            assert not any(step.get("text") for step in shown["steps"])
    said = "".join(event["text"] for event in told[running["id"]] if event["type"] == "text.delta")
    assert "".join(f"{n} " for n in range(1, 401)).startswith(said)
    after = begun(cluster, "@count 3", conversation_id=running["conversation_id"])
    assert ended(elsewhere, after["id"], "completed")["steps"][-1]["text"] == "1 2 3 "


@pytest.mark.requirement("idempotency:replayed", "idempotency:one-turn", "idempotency:another-body-is-refused")
def test_a_run_is_accepted_once_for_its_key(cluster: Cluster, elsewhere: Gateway) -> None:
    key = f"run {uuid.uuid4()}"
    with concurrent.futures.ThreadPoolExecutor(8) as clients:
        asked = [clients.submit(run, (cluster, elsewhere)[n % 2], "@count 4", idempotency=key) for n in range(8)]
        replies = [future.result(timeout=20) for future in asked]
    replies.append(run(elsewhere, "@count 4", idempotency=key))
    assert {reply.status for reply in replies} == {202}
    assert {reply.headers["Location"] for reply in replies} == {replies[0].headers["Location"]}
    assert sum("Idempotency-Replayed" not in reply.headers for reply in replies) == 1
    assert replies[-1].headers["Idempotency-Replayed"] == "true"
    told = [{**reply.json(), "status": ""} for reply in replies]
    assert all(each == told[0] for each in told)
    found = ended(cluster, told[0]["id"], "completed")
    late = run(cluster, "@count 4", idempotency=key)
    assert (late.status, late.json()["id"]) == (202, found["id"])
    other = run(cluster, "@count 5", idempotency=key)
    assert (other.status, other.json()["code"]) == (422, "idempotency.mismatch")
    assert json.loads(other.body)["status"] == 422
