"""Where the sections and the code of a Markdown text are. Pure; one look at each line, and nothing is rendered."""

from collections.abc import Iterator
from typing import Final, NamedTuple

_BETWEEN: Final = " > "
_HEADING_CHARS: Final = 120
_HEADING_LEVELS: Final = 6
_CODE_INDENT: Final = 4
_FENCE: Final = 3
_NO_TITLES: Final = ("|", ">", "-", "*", "+", "#", "`", "~")
_FRONT_MATTER: Final = "---"


class Section(NamedTuple):
    """A stretch of a text.

    Attributes:
        heading: The headings above it, outermost first; empty where there is none.
        code: Where fenced code begins and ends, in order.

    """

    start: int
    end: int
    heading: str = ""
    code: tuple[tuple[int, int], ...] = ()


class _Line(NamedTuple):
    start: int
    end: int
    text: str


def sections(text: str) -> list[Section]:
    """Part a text at its headings, without gaps; a heading with nothing below it goes with the section behind it."""
    found: list[Section] = []
    trail: list[tuple[int, str]] = []
    code: list[tuple[int, int]] = []
    start, has_body, fence, fence_start = 0, False, "", 0
    before = ""
    matter_end = _front_matter_end(text)
    lines = _with_next(_lines(text))
    for line, below in lines:
        above, before = before, line.text
        mark = _fence_mark(line.text)
        if line.end <= matter_end:
            has_body = True
        elif fence:
            if mark.startswith(fence) and not line.text.strip("`~ \t"):
                code.append((fence_start, line.end))
                fence = ""
        elif mark:
            fence, fence_start, has_body = mark, line.start, True
        elif (heading := _heading(line.text, above, below)) is None:
            has_body = has_body or not _is_rule(line.text)
        else:
            level, title = heading
            if has_body:
                found.append(Section(start, line.start, _named(trail), tuple(code)))
                start, has_body, code = line.start, False, []
            trail = [*(each for each in trail if each[0] < level), (level, title[:_HEADING_CHARS])]
    found.append(Section(start, len(text), _named(trail), tuple(code)))
    return found


def _named(trail: list[tuple[int, str]]) -> str:
    return _BETWEEN.join(title for _, title in trail if title)


def _lines(text: str) -> Iterator[_Line]:
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield _Line(start, end, text[start:end].rstrip("\n"))
        start = end


def _with_next(lines: Iterator[_Line]) -> Iterator[tuple[_Line, str]]:
    """Pair each line with the text of the one below it."""
    held = next(lines, None)
    for line in lines:
        if held is not None:
            yield held, line.text
        held = line
    if held is not None:
        yield held, ""


def _front_matter_end(text: str) -> int:
    if not text.startswith(f"{_FRONT_MATTER}\n"):
        return 0
    end = text.find(f"\n{_FRONT_MATTER}\n")
    return 0 if end < 0 else end + len(_FRONT_MATTER) + 2


def _fence_mark(line: str) -> str:
    """Return the run of marks that a line of a code fence begins with; empty for any other line."""
    bare = line.lstrip(" ")
    if len(line) - len(bare) >= _CODE_INDENT or bare[:1] not in ("`", "~"):
        return ""
    rest = bare.lstrip(bare[0])
    is_fence = len(bare) - len(rest) >= _FENCE and not (bare[0] == "`" and "`" in rest)
    return bare[: len(bare) - len(rest)] if is_fence else ""


def _heading(line: str, above: str, below: str) -> tuple[int, str] | None:
    """Return the level and the text of a heading, `# Like this` or underlined."""
    bare = line.lstrip(" ")
    if not bare or len(line) - len(bare) >= _CODE_INDENT:
        return None
    rest = bare.lstrip("#")
    level = len(bare) - len(rest)
    if 0 < level <= _HEADING_LEVELS and (not rest or rest[0] in " \t"):
        return level, rest.strip().rstrip("#").rstrip()
    if _is_underline(below) and not above.strip() and not bare.startswith(_NO_TITLES):
        return (1 if "=" in below else 2), bare.strip()
    return None


def _is_underline(line: str) -> bool:
    bare = line.strip()
    return len(bare) >= _FENCE and bare in ("=" * len(bare), "-" * len(bare))


def _is_rule(line: str) -> bool:
    return not line.strip() or _is_underline(line)
