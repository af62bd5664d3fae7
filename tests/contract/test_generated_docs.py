import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

GENERATED = ("settings.md", "metrics.md", "turn.md")


@pytest.fixture
def documents(repository: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], str]]:
    monkeypatch.syspath_prepend(str(repository / "scripts"))
    spec = importlib.util.spec_from_file_location("generate_docs", repository / "scripts" / "generate_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Callable[[], str]] = module.DOCUMENTS
    return found


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_document_is_in_step_with_the_code(
    repository: Path, documents: dict[str, Callable[[], str]], name: str
) -> None:
    assert (repository / "docs" / name).read_text() == documents[name](), "run `make docs`"


def test_every_generated_document_is_checked(documents: dict[str, Callable[[], str]]) -> None:
    assert set(documents) == set(GENERATED)
