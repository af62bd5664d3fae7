"""Requirements and tests name each other: nothing is claimed that no test proves, nothing proven that is not asked."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from requirements import REQUIREMENTS

FOLDER = Path(__file__).resolve().parents[2]
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


class Proof(NamedTuple):
    """A test that says it proves a requirement."""

    requirement: str
    test: str


def marked(path: Path) -> Iterator[Proof]:
    """Read a file's markers without running it; an argument that is no literal is told as it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.requirement":
                    test = f"{path.relative_to(FOLDER)}::{node.name}"
                    for each in mark.args:
                        named = each.value if isinstance(each, ast.Constant) else ast.unparse(each)
                        yield Proof(str(named), test)


PROOFS = [proof for path in sorted((FOLDER / "tests").rglob("test_*.py")) for proof in marked(path)]


def written_ids() -> list[str]:
    """Return the ids in the order of the file: a mapping would hide one that is there twice."""
    tree = ast.parse((FOLDER / "tests" / "requirements.py").read_text(encoding="utf-8"))
    (written,) = [node for node in ast.walk(tree) if isinstance(node, ast.Dict)]
    return [key.value for key in written.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]


def headings(page: str) -> set[str]:
    return {heading.lower() for heading in HEADING.findall((FOLDER / page).read_text(encoding="utf-8"))}


def test_every_proof_names_a_requirement_and_a_test() -> None:
    assert [proof for proof in PROOFS if proof.requirement not in REQUIREMENTS] == []
    assert [proof for proof in PROOFS if not proof.test.rpartition("::")[2].startswith("test_")] == []
    assert len(PROOFS) == len(set(PROOFS))


def test_every_requirement_is_proven() -> None:
    assert sorted(REQUIREMENTS.keys() - {proof.requirement for proof in PROOFS}) == []


def test_ids_are_sorted_and_each_is_there_once() -> None:
    ids = written_ids()
    assert ids == sorted(set(ids))
    assert ids == list(REQUIREMENTS)
    assert [each for each in ids if not re.fullmatch(r"[a-z-]+:[A-Za-z0-9-]+", each)] == []


def test_every_sentence_is_one_and_is_said_once() -> None:
    sentences = [requirement.sentence for requirement in REQUIREMENTS.values()]
    assert len(sentences) == len(set(sentences))
    assert [each for each in sentences if not re.fullmatch(r"[A-Z][^\n]+[^.]\.", each) or ". " in each] == []


@pytest.mark.parametrize("source", sorted({requirement.source for requirement in REQUIREMENTS.values()}))
def test_a_source_in_this_repository_is_there(source: str) -> None:
    page, _, section = source.partition(": ")
    if page == "architecture":
        page = "docs/architecture.md"
    if source.startswith("promise "):
        number = source.removeprefix("promise ")
        assert f"| {number} |" in (FOLDER / "docs" / "promises.md").read_text(encoding="utf-8")
    elif page.endswith(".md"):
        assert section in headings(page) | {""}
