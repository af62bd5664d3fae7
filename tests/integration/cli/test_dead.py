"""`kitemesh dead` against a stand-in for the gateway that keeps three letters on pages of two."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from kitemesh_cli.servers import LOOPBACK, free_port


def letter(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": str(number),
        "stream": "KM_MODEL",
        "kind": "model",
        "turn": f"turn-{number}",
        "reason": "delivered too often\x1b[2J\x7f",
        "deliveries": 4,
        "at": "2026-11-22T10:00:00Z",
        "requeueable": number != 2,
        "why": "its client is gone" if number == 2 else "",
        **more,
    }


class Gateway:
    """Keeps the letters."""

    def __init__(self) -> None:
        self.letters = {str(number): letter(number) for number in (3, 2, 1)}
        self.url = ""

    def answer(self, method: str, path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        if path == "/v1/dead":
            ids = [each for each in self.letters if int(each) < int(query.get("cursor", ["99"])[0])]
            page, more = ids[:2], ids[2:]
            return 200, {"data": [self.letters[each] for each in page], "next_cursor": page[-1] if more else None}
        _, _, _, number, *rest = path.split("/")
        found = self.letters.get(number)
        if found is None:
            return 404, {"code": "dead.unknown", "detail": "there is no such dead letter"}
        if method == "GET":
            effects = [{"id": "call-1", "name": "charge", "step": 0, "state": "finished"}]
            return 200, {**found, "tenant": "acme", "status": "failed", "steps": 1, "effects": effects}
        if rest and not found["requeueable"]:
            return 409, {"code": "dead.refused", "detail": found["why"]}
        del self.letters[number]
        if rest:
            return 200, {"id": number, "turn": found["turn"], "tenant": "acme", "status": "running"}
        return 200, {"id": number, "deleted": True}


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Gateway]:
    kept = Gateway()

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            parts = urlsplit(self.path)
            status, body = kept.answer(self.command, parts.path, parse_qs(parts.query))
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = do  # noqa: N815  the library's names

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KITEMESH_URL", f"http://{LOOPBACK}:{server.server_port}")
    yield kept
    server.shutdown()
    thread.join()
    server.server_close()


Run = Callable[..., Any]


@pytest.mark.usefixtures("gateway")
def test_letters_are_listed_over_all_pages(verb: Run) -> None:
    listed = verb("dead", "list")
    assert [line.split()[0] for line in listed.out.splitlines()] == ["ID", "3", "2", "1"]
    assert "\x1b" not in listed.out
    limited = verb("dead", "list", "--limit", "2").out.splitlines()
    assert [line.split()[0] for line in limited] == ["ID", "3", "2", "and"]
    told = verb("dead", "list", "--json").out
    assert [each["id"] for each in json.loads(told)] == ["3", "2", "1"]
    assert not {"\x1b", "\x7f"} & {*listed.out, *told}
    assert json.loads(told)[0]["reason"] == "delivered too often\x1b[2J\x7f"


@pytest.mark.parametrize("limit", ["0", "-1", "many"])
def test_a_list_of_no_letters_is_no_list(verb: Run, limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        verb("dead", "list", f"--limit={limit}")
    assert "is not a number from 1 to" in capsys.readouterr().err


def test_a_password_in_the_address_of_a_gateway_is_not_shown(verb: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITEMESH_URL", f"http://proxy:secret@{LOOPBACK}:{free_port()}")
    for key in ("", "km_of_nobody"):
        monkeypatch.setenv("KITEMESH_KEY", key)
        asked = verb("dead", "list")
        assert asked.code == 1
        assert asked.err.startswith(f"kitemesh: the gateway does not answer at http://proxy:***@{LOOPBACK}:")


@pytest.mark.usefixtures("gateway")
def test_one_is_shown_with_its_calls_and_whether_it_can_go_on(verb: Run) -> None:
    shown = verb("dead", "show", "3").out
    assert "requeue: it can go on from where it stood" in shown
    assert "call-1  charge  0     finished" in shown
    assert "requeue: no: its client is gone" in verb("dead", "show", "2").out
    assert json.loads(verb("dead", "show", "3", "--json").out)["effects"][0]["state"] == "finished"
    missing = verb("dead", "show", "9")
    assert (missing.code, missing.err) == (1, "kitemesh: there is no such dead letter (dead.unknown)\n")


def test_one_that_is_refused_keeps_no_other_back(verb: Run, gateway: Gateway) -> None:
    requeued = verb("dead", "requeue", "--all")
    assert requeued.code == 1
    assert requeued.out.splitlines() == [
        "dead letter 3: execution turn-3 of tenant acme goes on",
        "dead letter 1: execution turn-1 of tenant acme goes on",
    ]
    assert requeued.err == "kitemesh: dead letter 2: its client is gone (dead.refused)\n"
    assert list(gateway.letters) == ["2"]
    dropped = verb("dead", "drop", "2", "2", "--json")
    assert (dropped.code, json.loads(dropped.out)) == (0, [{"id": "2", "deleted": True}])
    assert verb("dead", "drop", "--all").out == "there are no dead letters\n"


@pytest.mark.usefixtures("gateway")
def test_nothing_is_done_to_letters_that_nobody_named(verb: Run) -> None:
    for words in (("requeue",), ("drop", "3", "--all")):
        refused = verb("dead", *words)
        assert (refused.code, refused.out) == (1, "")
        assert "name dead letters by their ids" in refused.err
