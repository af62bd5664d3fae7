"""Files for the knowledge base: which ones are meant, what they are called there, and what is wrong with them."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from kitemesh_runtime.knowledge import DOCUMENT_MAX_CHARS, NAME_MAX_CHARS, is_name
from kitemesh_runtime.knowledge_chunks import Chunk, is_markdown, split

_LOOKED_FOR: Final = frozenset({".md", ".markdown", ".mdown", ".mkd", ".txt", ".text"})
"""Of a folder; a file that is named itself may be called what it likes."""


class Readable(NamedTuple):
    """A file that can be stored.

    Attributes:
        name: Of the document.
        characters: Of its text.

    """

    name: str
    characters: int
    chunks: Sequence[Chunk]


def find_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files that are named, and the text and Markdown files below folders that are, sorted."""
    for path in paths:
        if path.is_dir():
            yield from sorted(each for each in path.rglob("*") if each.suffix.lower() in _LOOKED_FOR and each.is_file())
        else:
            yield path


def name_of(path: Path) -> str:
    """Return what a file's document is called: its path below the current folder, else only its own name."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.name


def read(paths: Iterable[Path]) -> tuple[list[Readable], list[str]]:
    """Read files, and say what is wrong with those that cannot be stored, one sentence each."""
    found: dict[str, Readable] = {}
    problems: list[str] = []
    for path in paths:
        name = name_of(path)
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as exc:
            problems.append(f"{path} cannot be read: {exc.strerror}")
            continue
        except UnicodeDecodeError:
            problems.append(f"{path} is not UTF-8 text")
            continue
        if not is_name(name):
            problems.append(f"{path} must have a name of 1 to {NAME_MAX_CHARS} printable characters")
        elif len(text) > DOCUMENT_MAX_CHARS:
            problems.append(f"{path} is longer than {DOCUMENT_MAX_CHARS} characters; part it")
        elif not text.strip():
            problems.append(f"{path} is empty")
        elif name in found:
            problems.append(f"{path} would be called {name}, as another file")
        else:
            found[name] = Readable(name, len(text), split(text, markdown=is_markdown(name)))
    return list(found.values()), problems
