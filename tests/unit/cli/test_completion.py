"""What a shell completes the command with, asked of bash itself."""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kitemesh_cli import __main__ as command

COMPLETE = """
source "$1"; shift
function=$(complete -p kitemesh | sed 's/.*-F \\([^ ]*\\).*/\\1/')
COMP_WORDS=(kitemesh "$@"); COMP_CWORD=$#
"$function" kitemesh "${@: -1}" "${COMP_WORDS[$(($# - 1))]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
PRINTS_NO_RESULT = {"dev", "demo", "completion"}


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.setattr(sys, "argv", ["kitemesh", "completion", "bash"])
    assert command.main() == 0
    file = tmp_path / "kitemesh.bash"
    file.write_text(capsys.readouterr().out)
    return file


def complete(script: Path, *words: str) -> set[str]:
    told = subprocess.run(
        ["bash", "-c", COMPLETE, "-", str(script), *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=script.parent,
    )
    return set(told.stdout.split())


@pytest.mark.requirement("cli:completion")
def test_bash_completes_verbs_options_choices_and_files(script: Path) -> None:
    (script.parent / "folder").mkdir()
    assert complete(script, "do") == {"doctor", "down"}
    assert complete(script, "dead", "re") == {"requeue"}
    assert complete(script, "keys", "create", "--pri") == {"--priority"}
    assert complete(script, "keys", "create", "--priority", "") == {"interactive", "batch"}
    assert complete(script, "doctor", "--access", "f") == {"folder"}
    assert complete(script, "catalog", "check", "kite") == {"kitemesh.bash"}


@pytest.mark.parametrize(("shell", "word"), [("zsh", "#compdef kitemesh"), ("fish", "complete -c kitemesh")])
def test_other_shells_have_a_script_too(
    shell: str, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["kitemesh", "completion", shell])
    assert command.main() == 0
    assert word in capsys.readouterr().out


def leaves(parser: argparse.ArgumentParser, *names: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    below = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    if not below:
        yield " ".join(names), parser
    for action in below:
        for name, each in action.choices.items():
            yield from leaves(each, *names, name)


VERBS = dict(leaves(command.build()))


@pytest.mark.requirement("cli:json")
@pytest.mark.parametrize("verb", sorted(VERBS.keys() - PRINTS_NO_RESULT))
def test_every_verb_with_a_result_can_print_it_as_json(verb: str) -> None:
    assert "--json" in VERBS[verb]._option_string_actions


@pytest.mark.requirement("cli:json")
def test_one_document_is_all_that_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "catalog.yaml"
    file.write_text("providers: {s: {kind: scripted}}\nmodels: {m: {provider: s}}\n")
    counts = {"providers": 1, "models": 1, "agents": 0, "groups": 0, "tools": 0, "policies": 0, "webhooks": 0}
    for words, wanted in [
        (["catalog", "check", str(file)], {"valid": True, "problems": [], "warnings": [], "counts": counts}),
        (["down", "--data", str(tmp_path)], {"stopped": None}),
    ]:
        monkeypatch.setattr(sys, "argv", ["kitemesh", *words, "--json"])
        assert command.main() == 0
        printed = capsys.readouterr()
        assert json.loads(printed.out) == wanted
        assert printed.err == ""
    file.write_text("models: {m: {}}\n")
    monkeypatch.setattr(sys, "argv", ["kitemesh", "catalog", "check", str(file), "--json"])
    assert command.main() == 1
    assert json.loads(capsys.readouterr().out)["valid"] is False
