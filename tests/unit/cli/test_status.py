"""`kitemesh status` again and again, on a terminal and elsewhere."""

import io
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from kitemesh_cli import __main__ as command
from kitemesh_cli import status, status_screen
from kitemesh_cli.failures import Failed

REPLICA = {"replica": "one", "state": "alive", "version": "1.0", "up_s": 9.0, "load": 0, "silent_s": 1.0}
CLUSTER = {
    "source": "gateway",
    "why": "",
    "services": [{"service": each, "replicas": [REPLICA]} for each in ("gateway", "orchestrator", "model-runner")],
    "dead_letters": 0,
    "holds": {"open": 1, "oldest_s": 5.0},
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def call(*words: str, answers: list[dict[str, Any] | Failed]) -> int:
        waiting = iter(answers)

        def read(*_: object) -> dict[str, Any]:
            answer = next(waiting, None)
            if answer is None:
                raise KeyboardInterrupt
            if isinstance(answer, Failed):
                raise answer
            return answer

        monkeypatch.setattr(status, "read_cluster", read)
        monkeypatch.setattr(status.time, "sleep", lambda _: None)
        monkeypatch.setattr(sys, "argv", ["kitemesh", "status", *words])
        return command.main()

    return call


def test_it_is_shown_again_and_goes_on_when_nobody_answers(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--watch", "--every", "7", answers=[CLUSTER, Failed("nobody answers"), CLUSTER]) == 130
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "\x1b" not in printed.out
    assert printed.out.count("every 7 s until Ctrl-C") == 3
    assert printed.out.count("everything is well") == 2
    assert printed.out.count("wrong: nobody answers") == 1


def test_on_a_terminal_it_is_drawn_again_in_place(run: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=80, height=50)
    monkeypatch.setattr(status_screen, "terminal", lambda: console)
    assert run("--watch", answers=[CLUSTER, CLUSTER]) == 130
    assert isinstance(console.file, io.StringIO)
    drawn = console.file.getvalue()
    assert drawn.count("everything is well") >= 2
    # Up a line and over it.
    assert "\x1b[1A\x1b[2K" in drawn


def test_what_is_wrong_is_an_exit_code_and_words_for_programs(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    down = {**CLUSTER, "dependencies": {"nats": {"up": False, "since_s": 3.0, "reason": "gone"}}}
    assert run("--json", answers=[down]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["well"] is False
    assert document["words"] == [{"mood": "wrong", "text": "nats is down for 3s: gone"}]
    assert run(answers=[Failed("nobody answers")]) == 1
    assert capsys.readouterr().err == "kitemesh: nobody answers\n"


@pytest.mark.parametrize("words", [("--watch", "--json"), ("--every", "0"), ("--every", "soon")])
def test_what_makes_no_sense_is_wrong_usage(run: Callable[..., int], words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as raised:
        run(*words, answers=[])
    assert raised.value.code == 2
