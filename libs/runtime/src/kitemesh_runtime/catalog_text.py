"""A catalog's text as YAML: its values, the names that it gives twice, and the line of each place. Pure.

YAML itself keeps the last of two entries with one name, so that the first would be lost without a word.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import yaml

_MERGE: Final = "tag:yaml.org,2002:merge"


class Text(NamedTuple):
    """What a text holds.

    Attributes:
        twice: A sentence for each name that one mapping has more than once, beginning with its place.

    """

    content: Any
    twice: list[str]


def load(text: str) -> Text:
    """Read a text.

    Raises:
        yaml.YAMLError: It is not YAML.

    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return Text(None, [])
        # Before it is constructed: that merges mappings in place, and what is overridden then looks like a repetition.
        twice = list(_twice(node, (), set()))
        return Text(loader.construct_document(node), twice)
    except (AttributeError, LookupError) as exc:
        # What the library raises where a value is not what its own tag says.
        raise yaml.YAMLError("a value does not fit its tag") from exc
    finally:
        loader.dispose()


class Lines:
    """Where the places of a text are; a text that is not YAML has none."""

    def __init__(self, text: str) -> None:
        try:
            self._root = yaml.compose(text, yaml.SafeLoader)
        except (yaml.YAMLError, RecursionError):
            self._root = None

    def find(self, problem: str) -> int | None:
        """Return the line, from 1, of the place that a sentence begins with, or of the nearest part around it.

        `None` for a sentence about the whole.
        """
        place, found, _ = problem.partition(": ")
        line: int | None = None
        node = self._root if found else None
        while node is not None and place:
            step = _step(node, place)
            if step is None:
                break
            line, node, place = step
        return line


def _step(node: yaml.Node, place: str) -> tuple[int, yaml.Node, str] | None:
    """Follow a place by one name or number: its line, what is there, the rest of the place."""
    entries: Iterator[tuple[str, yaml.Node, yaml.Node]]
    if isinstance(node, yaml.MappingNode):
        entries = ((str(key.value), key, value) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        entries = ((str(number), each, each) for number, each in enumerate(node.value))
    else:
        return None
    # A name may hold dots: the longest that fits is meant.
    fits = [each for each in entries if place == each[0] or place.startswith(f"{each[0]}.")]
    if not fits:
        return None
    name, where, value = max(fits, key=lambda each: len(each[0]))
    return where.start_mark.line + 1, value, place[len(name) + 1 :]


def _twice(node: yaml.Node, place: tuple[str, ...], seen: set[int]) -> Iterator[str]:
    # What is anchored is there once, however often it is referred to.
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for number, each in enumerate(node.value):
            yield from _twice(each, (*place, str(number)), seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                first = lines.get((key.tag, name))
                if first is not None:
                    yield f"{'.'.join((*place, name))}: is there twice, in lines {first} and {line}"
                lines.setdefault((key.tag, name), line)
            yield from _twice(value, (*place, name), seen)
