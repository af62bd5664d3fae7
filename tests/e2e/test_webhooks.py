"""Webhooks over HTTP: signed, told again by schedule under the same key, and never a turn's business."""

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import pytest

from cluster import Cluster
from tool_cluster import (
    ToolCluster,
    ask,
    calling,
    content,
    decide,
    ended,
    hold,
    resume,
    tool_cluster,
    until,
    verdicts,
)

Check = Callable[[Mapping[str, str], bytes, str], bool]

SECRET: Final = "correct horse battery staple"
EVENTS: Final = ["approval.requested", "approval.decided", "approval.expired", "turn.finished", "turn.failed"]
FIRST_DELAY_S: Final = 5.0
FAILS_S: Final = 2.0
"""Longer than a delivery goes on trying, shorter than it takes until the next one."""


class Told(NamedTuple):
    """What a receiver was sent, and when."""

    path: str
    headers: dict[str, str]
    body: bytes
    at_s: float

    @property
    def content(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


class Receiver:
    """Takes webhooks; `/flaky` fails for a while at first, whatever it is told."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                told = Told(self.path, headers, body, time.monotonic())
                receiver.told.append(told)
                first = next(each for each in receiver.told if (each.path, each.body) == (told.path, told.body))
                fails = told.path == "/flaky" and told.at_s - first.at_s < FAILS_S
                self.send_response(500 if fails else 204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def about(self, name: str, *, path: str = "/desk") -> list[Told]:
        """Return what was told of an execution, oldest first."""
        return [each for each in self.told if each.path == path and each.content["data"]["execution_id"] == name]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def canary() -> Iterator[socket.socket]:
    """A listener that nobody may connect to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        yield listener


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver, canary: socket.socket) -> Iterator[ToolCluster]:
    def webhook(url: str, **more: Any) -> dict[str, Any]:
        return {"url": url, "events": EVENTS, "secret": {"env": "DESK_SECRET"}, **more}

    inside = {"allow_networks": ["127.0.0.0/8"]}

    def change(catalog: dict[str, Any]) -> None:
        catalog["pools"] = {"tool": {"default": {}, "webhooks": {}}}
        catalog["webhooks"] = {
            "desk": webhook(f"{receiver.url}/desk", **inside),
            "flaky": webhook(f"{receiver.url}/flaky", **inside),
            "private": webhook(f"https://localhost:{canary.getsockname()[1]}/private"),
            "foreign": webhook(f"{receiver.url}/foreign", tenants=["somebody-else"], **inside),
        }

    with tool_cluster(tmp_path_factory.mktemp("webhooks"), change, DESK_SECRET=SECRET) as running:
        yield running


@pytest.fixture(scope="module")
def one(desk: ToolCluster) -> Cluster:
    return desk.cluster


def types(receiver: Receiver, name: str) -> list[str]:
    return sorted(each.content["type"] for each in receiver.about(name))


@pytest.fixture(scope="module")
def is_genuine() -> Check:
    """Check a signature with the code that docs/approvals.md tells receivers to use."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "approvals.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    scope: dict[str, Any] = {}
    exec(example, scope)
    return cast("Check", scope["is_genuine"])


@pytest.mark.requirement("webhook:events", "webhook:signed")
def test_a_held_and_approved_turn_is_told_signed_and_once(one: Cluster, receiver: Receiver, is_genuine: Check) -> None:
    held = hold(one, calling(("pay", {"id": "Ada", "amount": 3}), ("wipe", {"id": "old"})))
    assert content(resume(one, held.resumption(held.calls[0])))
    wanted = ["approval.decided", "approval.requested", "turn.finished"]
    until(lambda: types(receiver, held.execution) == wanted)
    for told in receiver.about(held.execution):
        assert is_genuine(told.headers, told.body, SECRET)
        assert not is_genuine(told.headers, told.body, "another secret")
        assert not is_genuine(told.headers, told.body + b" ", SECRET)
        another_s = str(int(told.headers["x-kitemesh-timestamp"]) - 1)
        assert not is_genuine({**told.headers, "x-kitemesh-timestamp": another_s}, told.body, SECRET)
        assert told.headers["idempotency-key"] == told.content["id"]
        assert told.headers["content-type"] == "application/json"
    data = {told.content["type"]: told.content["data"] for told in receiver.about(held.execution)}
    asked, decided, finished = (data[name] for name in ("approval.requested", "approval.decided", "turn.finished"))
    assert asked["approval_id"] == decided["approval_id"] == held.approval
    assert [call["sentence"] for call in asked["calls"]] == ["Pay 3 to Ada", "Wipe old for good"]
    assert [call["approved"] for call in asked["calls"]] == [None, None]
    assert [call["approved"] for call in decided["calls"]] == [True, False]
    assert (finished["status"], finished["conversation_id"]) == ("completed", held.conversation)
    assert receiver.about(held.execution, path="/foreign") == []


@pytest.mark.requirement("webhook:events")
def test_a_hold_in_two_parts_is_requested_once_and_decided_twice(one: Cluster, receiver: Receiver) -> None:
    held = hold(one, calling(("pay", {"id": "a"}), ("wipe", {"id": "b"})))
    for call in held.calls:
        assert decide(one, held, *verdicts([call], approved=True)).status == 200
        until(lambda call=call: ended_or_called(one, held.execution, call))
    ended(one, held, "completed")
    wanted = ["approval.decided", "approval.decided", "approval.requested", "turn.finished"]
    until(lambda: len(types(receiver, held.execution)) >= len(wanted))
    assert types(receiver, held.execution) == wanted


def ended_or_called(one: Cluster, name: str, call: str) -> bool:
    steps = one.call(f"/v1/executions/{name}").json()["steps"]
    return any(each["id"] == call and each["status"] == "completed" for step in steps for each in step["tool_calls"])


@pytest.mark.requirement("webhook:events")
def test_expired_holds_and_failed_turns_are_told(one: Cluster, receiver: Receiver) -> None:
    held = hold(one, calling(("wipe", {"id": "late"})), "hasty")
    failing = ask(one, "@fail upstream.failed")
    assert failing.status == 502
    wanted = ["approval.expired", "approval.requested", "turn.finished"]
    until(lambda: types(receiver, held.execution) == wanted)
    name = failing.headers["x-execution-id"]
    (failed,) = until(lambda: receiver.about(name))
    assert failed.content["type"] == "turn.failed"
    assert failed.content["data"]["error"]["code"] == "upstream.failed"


@pytest.mark.requirement("webhook:retried", "webhook:never-the-turns-business")
def test_a_receiver_that_fails_is_told_again_later_under_the_same_key(
    one: Cluster, receiver: Receiver, is_genuine: Check
) -> None:
    began_s = time.monotonic()
    reply = ask(one, "@echo hello")
    assert content(reply) == "hello"
    assert time.monotonic() - began_s < FIRST_DELAY_S
    name = reply.headers["x-execution-id"]
    until(lambda: (told := receiver.about(name, path="/flaky")) and told[-1].at_s - told[0].at_s > FAILS_S)
    *failed, taken = receiver.about(name, path="/flaky")
    assert 2 <= len(failed) <= 3
    assert FIRST_DELAY_S - 0.5 < taken.at_s - failed[-1].at_s < 2 * FIRST_DELAY_S
    assert {each.body for each in failed} == {taken.body}
    assert {each.headers["idempotency-key"] for each in failed} == {taken.headers["idempotency-key"]}
    assert all(is_genuine(each.headers, each.body, SECRET) for each in (*failed, taken))
    assert int(taken.headers["x-kitemesh-timestamp"]) > int(failed[0].headers["x-kitemesh-timestamp"])
    assert len(receiver.about(name)) == 1


@pytest.mark.requirement("promise:P21", "webhook:never-the-turns-business")
def test_a_webhook_to_an_address_that_is_not_allowed_connects_to_nothing(
    desk: ToolCluster, one: Cluster, canary: socket.socket
) -> None:
    log = desk.cluster.data / "logs" / "tool-executor-webhooks.log"
    assert content(ask(one, "@echo hello")) == "hello"
    until(lambda: '"tool":"webhook_private"' in log.read_text())
    outcomes = {
        line["outcome"]
        for line in map(json.loads, log.read_text().splitlines())
        if line.get("tool") == "webhook_private"
    }
    assert outcomes == {"tool.blocked"}
    with pytest.raises(BlockingIOError):
        canary.accept()
