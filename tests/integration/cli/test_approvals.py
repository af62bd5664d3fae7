"""`kitemesh approvals` against a stand-in for the gateway that keeps one approval of two calls."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest

from kitemesh_cli.data_folder import DataFolder, write_private
from kitemesh_cli.dev_lock import acquire
from kitemesh_cli.servers import LOOPBACK, free_port

Run = Callable[..., Any]
APPROVAL: Final = "86dd028d-6f5c-4f13-83db-d4fe9bc5b865"
FIRST: Final = "1fb2fd25-8f78-412a-a0b8-7976e3700fc4"
SECOND: Final = "2fb2fd25-8f78-412a-a0b8-7976e3700fc4"


def call(id_: str, sentence: str, **more: Any) -> dict[str, Any]:
    return {
        "tool_execution_id": id_,
        "name": "delete_record",
        "sentence": sentence,
        "arguments": {"id": "42", "pin": "***"},
        "sha256": "0" * 64,
        "tool_version": "abcdef0123456789",
        "effect": "once",
        **more,
    }


class Gateway:
    """Keeps one approval, and what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str | None]] = []
        self.bodies: list[Any] = []
        self.pages: list[dict[str, Any]] = []
        self.refusal: tuple[int, Any] | None = None
        self.url = ""
        self.approval: dict[str, Any] = {
            "id": APPROVAL,
            "status": "open",
            "execution_id": "e1",
            "conversation_id": None,
            "model": "group:x",
            "agent": "assistant",
            "created_at": "2000-01-01T00:00:00Z",
            "expires_at": "2999-01-01T00:00:00Z",
            "scope": "approve",
            "decide": "each",
            "calls": [call(FIRST, "Delete record 42 for good"), call(SECOND, "Delete \u202e\x1b[2Jrecord\n43")],
        }

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        if self.refusal is not None:
            return self.refusal
        if method == "POST":
            self.bodies.append(body)
            for decision in body["decisions"]:
                decided = next(
                    c for c in self.approval["calls"] if c["tool_execution_id"] == decision["tool_execution_id"]
                )
                decided["decision"] = {
                    "approved": decision["approved"],
                    "reason": decision.get("reason", ""),
                    "by": "k1",
                    "from": "127.0.0.1",
                    "at": "2026-01-01T00:00:00Z",
                }
                if "arguments" in decision:
                    decided["decision"]["edited_arguments"] = decision["arguments"]
            return 200, self.approval
        if path == "/v1/approvals":
            if self.pages:
                return 200, self.pages[int(query.get("cursor", ["0"])[0])]
            status = query.get("status", [None])[0]
            return 200, {"data": [self.approval] if status in (None, "open") else [], "next_cursor": None}
        audit = [{"what": "approval.requested", "at": "t", "by": "", "from": "", "calls": {}, "reason": ""}]
        return 200, {**self.approval, "audit": audit}


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Gateway]:
    kept = Gateway()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            split = urlsplit(self.path)
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            kept.asked.append((self.command, self.path, self.headers.get("Authorization")))
            status, content = kept.answer(self.command, split.path, parse_qs(split.query), body)
            data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    kept.url = f"http://{LOOPBACK}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KITEMESH_URL", kept.url)
    monkeypatch.setenv("KITEMESH_KEY", "km_test")
    yield kept
    server.shutdown()
    thread.join()
    server.server_close()


def test_open_approvals_are_listed_with_what_would_be_done(gateway: Gateway, verb: Run) -> None:
    listed = verb("approvals", "list")
    assert listed.code == 0, listed.err
    header, row = listed.out.splitlines()
    assert header.split() == ["ID", "AGE", "EXPIRES", "IN", "AGENT", "WHAT"]
    assert row.startswith(APPROVAL)
    assert row.endswith("assistant  Delete record 42 for good (and 1 more)")
    assert gateway.asked == [("GET", "/v1/approvals?status=open", "Bearer km_test")]


def test_another_status_and_none_can_be_asked_for(gateway: Gateway, verb: Run) -> None:
    assert verb("approvals", "list", "--status", "expired").out == "no approval is expired\n"
    assert json.loads(verb("approvals", "list", "--status", "all", "--json").out) == [gateway.approval]
    assert gateway.asked[-1][1] == "/v1/approvals"


def test_a_list_goes_on_over_pages_until_its_limit(gateway: Gateway, verb: Run) -> None:
    gateway.pages = [{"data": [gateway.approval] * 2, "next_cursor": str(n + 1)} for n in range(3)]
    gateway.pages.append({"data": [], "next_cursor": None})
    assert len(json.loads(verb("approvals", "list", "--json").out)) == 6
    listed = verb("approvals", "list", "--limit", "3").out.splitlines()
    assert (len(listed), listed[-1]) == (5, "and more; --limit takes another number than 3")


def test_one_is_shown_with_its_calls_and_nothing_moves_the_cursor(gateway: Gateway, verb: Run) -> None:
    shown = verb("approvals", "show", APPROVAL).out
    assert "Delete record 42 for good" in shown
    assert "Delete \\x1b[2Jrecord\\n43" in shown
    assert '{"id": "42", "pin": "***"}' in shown
    assert "approval.requested" in shown
    assert "none so far" in shown
    assert "\x1b" not in shown
    assert json.loads(verb("approvals", "show", APPROVAL, "--json").out)["audit"]


def test_without_calls_every_undecided_one_is_approved(gateway: Gateway, verb: Run) -> None:
    done = verb("approvals", "approve", APPROVAL)
    assert done.code == 0, done.err
    assert gateway.bodies == [{"decisions": [{"tool_execution_id": id_, "approved": True} for id_ in (FIRST, SECOND)]}]
    assert done.out.splitlines() == ["approved: Delete record 42 for good", "approved: Delete \\x1b[2Jrecord\\n43"]
    again = verb("approvals", "approve", APPROVAL)
    assert again.code == 1
    assert "decided already" in again.err


def test_one_call_is_denied_with_a_reason_and_the_other_left(gateway: Gateway, verb: Run) -> None:
    done = verb("approvals", "deny", APPROVAL, SECOND, "--reason", "not this one")
    assert done.out == "denied: Delete \\x1b[2Jrecord\\n43\n"
    assert gateway.bodies == [
        {"decisions": [{"tool_execution_id": SECOND, "approved": False, "reason": "not this one"}]}
    ]
    verb("approvals", "deny", APPROVAL)
    assert [each["tool_execution_id"] for each in gateway.bodies[1]["decisions"]] == [FIRST]
    shown = verb("approvals", "show", APPROVAL).out
    assert "denied by key k1 from 127.0.0.1 at 2026-01-01T00:00:00Z" in shown
    assert "not this one" in shown


def test_a_call_is_approved_with_other_arguments(gateway: Gateway, verb: Run) -> None:
    done = verb("approvals", "approve", APPROVAL, FIRST, "--arguments", f'{FIRST}={{"id": "a=b"}}')
    assert done.out == "approved with other arguments: Delete record 42 for good\n"
    assert gateway.bodies[0]["decisions"][0]["arguments"] == {"id": "a=b"}
    assert 'runs with  {"id": "a=b"}' in verb("approvals", "show", APPROVAL).out
    refused = verb("approvals", "approve", APPROVAL, SECOND, "--arguments", f"{FIRST}={{}}")
    assert (refused.code, len(gateway.bodies)) == (1, 1)
    assert "not among the calls to approve" in refused.err


@pytest.mark.parametrize("text", ["x", "x=", "x=[1]", "x={", "a b={}", "={}"])
def test_what_are_no_arguments_is_wrong_usage(verb: Run, text: str) -> None:
    with pytest.raises(SystemExit) as caught:
        verb("approvals", "approve", APPROVAL, "--arguments", text)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("status", "content", "said"),
    [
        (
            409,
            {"code": "approval.decided", "detail": "It was decided\nalready"},
            "It was decided\\nalready (approval.decided)",
        ),
        (401, {"code": "credential.invalid", "detail": "No"}, "No (credential.invalid); name the key in KITEMESH_KEY"),
        (502, "<html>", "is no kitemesh gateway, or an older one (status 502)"),
        (200, "[]", "is no kitemesh gateway (status 200)"),
    ],
)
def test_a_refusal_is_told_in_the_gateways_words(
    gateway: Gateway, verb: Run, status: int, content: Any, said: str
) -> None:
    gateway.refusal = (status, content)
    refused = verb("approvals", "show", APPROVAL)
    assert refused.code == 1
    assert said in refused.err
    assert "km_test" not in refused.err


def test_a_gateway_that_is_not_there_is_named(verb: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"http://{LOOPBACK}:{free_port()}"
    monkeypatch.setenv("KITEMESH_URL", url)
    refused = verb("approvals", "list")
    assert (refused.code, refused.out) == (1, "")
    assert f"does not answer at {url} (Connection refused)" in refused.err


def test_the_cluster_that_runs_here_is_asked_with_its_key_and_no_other_gets_it(
    gateway: Gateway, verb: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KITEMESH_URL")
    monkeypatch.delenv("KITEMESH_KEY")
    folder = DataFolder(tmp_path / ".data")
    folder.create()
    write_private(folder.key, "km_dev\n")
    lock = acquire(folder.lock, gateway.url)
    try:
        assert verb("approvals", "list").code == 0
        monkeypatch.setenv("KITEMESH_URL", gateway.url.replace(LOOPBACK, "localhost"))
        verb("approvals", "list")
    finally:
        lock.release()
    assert [key for _, _, key in gateway.asked] == ["Bearer km_dev", None]
