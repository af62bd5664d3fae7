"""Cutting a document into pieces that are found, and read, by themselves. Pure; linear in the text's length.

A piece is a stretch of the text as it stands, so nothing is lost and nothing made up. It lies within one section, ends
where the text pauses if it can, and begins a little before the end of the one before it.
"""

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final, NamedTuple

from kitemesh_runtime.knowledge_markdown import Section, sections

CHUNK_CHARS: Final = 1200
OVERLAP_CHARS: Final = 150
_SENTENCES: Final = (". ", "! ", "? ", "\u3002", "\uff01", "\uff1f")
_WORDS: Final = (" ", "\t")
_ENDS: Final = (("\n\n",), ("\n",), _SENTENCES, _WORDS)
"""Behind what a piece may end, the best first."""
_BEGINNINGS: Final = (("\n", *_SENTENCES), _WORDS)
_MARKDOWN: Final = (".md", ".markdown", ".mdown", ".mkd")


class Chunk(NamedTuple):
    """A piece of a document.

    Attributes:
        heading: The headings above it, outermost first; empty where there is none.

    """

    heading: str
    text: str


def is_markdown(name: str) -> bool:
    """Tell whether a document's name says that it is Markdown."""
    return name.lower().endswith(_MARKDOWN)


def split(text: str, *, markdown: bool, size: int = CHUNK_CHARS, overlap: int = OVERLAP_CHARS) -> list[Chunk]:
    """Cut a text into pieces, in order; none for a text of blanks only.

    Args:
        text: The document.
        markdown: Its headings begin sections, and its code is kept together where it fits.
        size: The longest piece, in characters.
        overlap: So much of a piece is repeated in the next one of its section at the most; up to half of `size`.

    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    return [
        Chunk(section.heading, piece)
        for section in (sections(text) if markdown else [Section(0, len(text))])
        for start, end in _pieces(text, section, size, overlap)
        if (piece := text[start:end].strip())
    ]


def _pieces(text: str, section: Section, size: int, overlap: int) -> Iterator[tuple[int, int]]:
    start = section.start
    while section.end - start > size:
        end = _end(text, start, start + size, section.code)
        yield start, end
        start = _next_start(text, end, overlap)
    yield start, section.end


def _end(text: str, start: int, limit: int, code: tuple[tuple[int, int], ...]) -> int:
    """Return where a piece that begins at `start` ends: behind its middle, and not behind `limit`."""
    middle = start + (limit - start) // 2
    found = limit
    for marks in _ENDS:
        ends = [place + len(mark) for mark in marks if (place := text.rfind(mark, middle, limit)) >= 0]
        if ends:
            found = max(ends)
            break
    begun = bisect_left(code, (found,)) - 1
    if begun >= 0 and code[begun][1] > found:
        # It would end within code: better behind it, or before it.
        begin, end = code[begun]
        return end if end <= limit else begin if begin > middle else found
    return found


def _next_start(text: str, end: int, overlap: int) -> int:
    """Return where the piece behind one that ended at `end` begins: at a sentence or a word of its last part."""
    earliest = max(0, end - overlap)
    for marks in _BEGINNINGS:
        last = len(text[earliest:end].rstrip()) + earliest
        places = [place + len(mark) for mark in marks if (place := text.find(mark, earliest, last)) >= 0]
        if places:
            return min(places)
    return end
