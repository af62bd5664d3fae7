import sys

import pytest

from kitemesh_cli import __main__ as command
from kitemesh_cli import catalog
from kitemesh_cli.failures import Failed
from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_runtime.settings import SettingsError


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["kitemesh", *words])
    return command.main()


@pytest.mark.parametrize(
    ("problem", "code", "said"),
    [
        (Failed("no such thing"), 1, "kitemesh: no such thing\n"),
        (Failed("no model \x1b[2Jm; its log:\nended"), 1, "kitemesh: no model \\x1b[2Jm; its log:\nended\n"),
        (SettingsError(["A is wrong", "B is wrong"]), 78, "kitemesh: A is wrong\nkitemesh: B is wrong\n"),
        (Unavailable(ErrorCode.STORE_DOWN, "The store does not answer"), 1, "kitemesh: The store does not answer\n"),
        (
            ZeroDivisionError("by\nzero"),
            1,
            "kitemesh: ZeroDivisionError: by zero (`kitemesh --traceback …` shows where)\n",
        ),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_a_problem_ends_in_sentences_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    problem: BaseException,
    code: int,
    said: str,
) -> None:
    def fail(_: object) -> int:
        raise problem

    monkeypatch.setattr(catalog, "run", fail)
    assert run(monkeypatch, "catalog", "check", "x") == code
    assert capsys.readouterr().err == said


def test_help_lists_every_verb_and_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "--help")
    text = capsys.readouterr().out
    for word in (
        "dev",
        "demo",
        "down",
        "bootstrap",
        "keys",
        "catalog",
        "conversation",
        "approvals",
        "tools",
        "exit codes",
        "78",
    ):
        assert word in text


@pytest.mark.parametrize("words", [(), ("nonsense",), ("keys",), ("keys", "revoke", "--tenant", "a b", "x")])
def test_wrong_usage_is_exit_2(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, *words)
    assert caught.value.code == 2


def test_the_command_alone_prints_its_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch)
    assert "exit codes" in capsys.readouterr().err


def test_a_valid_catalog_is_summed_up_and_a_wrong_one_told_in_full(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("catalog") / "catalog.yaml"
    file.write_text("providers: {s: {kind: scripted}}\nmodels: {m: {provider: s}}\n")
    assert run(monkeypatch, "catalog", "check", str(file)) == 0
    told = capsys.readouterr()
    assert "models: 1" in told.out
    assert "tools: 0" in told.out
    assert told.err == ""
    file.write_text("providers: {s: {kind: nonsense}}\nmodels: {m: {}}\nextra: 1\n")
    assert run(monkeypatch, "catalog", "check", str(file)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.removeprefix(f"{file}:").split(": ")[:2] for line in lines] == [
        ["1", "providers.s.kind"],
        ["2", "models.m.provider"],
        ["3", "extra"],
    ]
    file.write_text('providers: {s: {kind: scripted}}\nmodels: {"\\e[2Jm": {provider: s}}\n')
    assert run(monkeypatch, "catalog", "check", str(file)) == 1
    assert "models.\\x1b[2Jm: " in capsys.readouterr().out
    file.write_text("models: [\n")
    assert run(monkeypatch, "catalog", "check", str(file)) == 1
    assert capsys.readouterr().out.startswith(f"{file}:2: not YAML: ")
    file.write_text("7\n")
    assert run(monkeypatch, "catalog", "check", str(file)) == 1
    assert capsys.readouterr().out == f"{file}: must be a mapping\n"
    assert run(monkeypatch, "catalog", "check", str(file.parent / "absent.yaml")) == 1
    assert capsys.readouterr().err.endswith("absent.yaml does not exist\n")


def test_what_a_catalog_leaves_unused_or_is_not_installed_here_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("catalog") / "catalog.yaml"
    tools = "tools: {mine: {kind: python, entry_point: nowhere}, theirs: {kind: python, entry_point: weather}}"
    agents = "agents: {a: {model: m, tools: [mine]}}"
    file.write_text(f"providers: {{s: {{kind: scripted}}}}\nmodels: {{m: {{provider: s}}}}\n{tools}\n{agents}\n")
    assert run(monkeypatch, "catalog", "check", str(file)) == 0
    assert capsys.readouterr().err.splitlines() == [
        "kitemesh: warning: tools.mine: nothing that is installed here has the entry point kitemesh.tools: nowhere",
        "kitemesh: warning: tools.theirs: no agent has it",
    ]
