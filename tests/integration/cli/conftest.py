import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from kitemesh_cli import __main__ as command
from kitemesh_cli.dev_catalog import packaged_text
from real_servers import running_nats


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture(scope="module")
def own_nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A nats-server of this module's own: the real streams belong to one test run only."""
    with running_nats(tmp_path_factory.mktemp("own-nats")) as url:
        yield url


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process."""

    def call(*words: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["kitemesh", *words])
        code = command.main()
        printed = capsys.readouterr()
        return Result(code, printed.out, printed.err)

    return call


@pytest.fixture
def run(verb: Run, monkeypatch: pytest.MonkeyPatch, own_nats_url: str, mongo_url: str, tmp_path: Path) -> Run:
    """Run the command on real servers and a database of the test's own."""
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(packaged_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KITEMESH_NATS_URL", own_nats_url)
    monkeypatch.setenv("KITEMESH_MONGO_URL", mongo_url)
    monkeypatch.setenv("KITEMESH_MONGO_DATABASE", f"cli-{tmp_path.name[-30:]}")
    monkeypatch.setenv("KITEMESH_KEY_PEPPER", "a pepper for the tests")
    monkeypatch.setenv("KITEMESH_CATALOG", str(catalog))
    return verb
