import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

GENERATED = ("settings.md", "metrics.md", "turn.md", "sizing.md")


@pytest.fixture
def files(repository: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], str]]:
    monkeypatch.syspath_prepend(str(repository / "scripts"))
    spec = importlib.util.spec_from_file_location("generate_docs", repository / "scripts" / "generate_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Callable[[], str]] = module.FILES
    return found


@pytest.mark.requirement("dashboards:generated")
def test_every_generated_file_is_in_step_with_the_code(repository: Path, files: dict[str, Callable[[], str]]) -> None:
    stale = [name for name, write in files.items() if (repository / name).read_text() != write()]
    assert not stale, "run `make docs`"


def test_every_generated_document_is_checked(files: dict[str, Callable[[], str]]) -> None:
    assert {f"docs/{name}" for name in GENERATED} <= set(files)
