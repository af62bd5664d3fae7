"""Cutting documents into passages: nothing is lost, nothing is too long, and what belongs together stays together."""

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kitemesh_runtime.knowledge_chunks import CHUNK_CHARS, Chunk, is_markdown, split

SENTENCE = "The quick brown fox jumps over the lazy dog. "

HANDBOOK = """\
---
title: Handbook
---
Welcome to the shop.

# Returns

Goods come back within 30 days.

## Europe

Two years of warranty.

## Elsewhere

```sh
# this is no heading
refund --all
```

Shipping
========

We ship on Mondays.
"""


def flat(text: str) -> str:
    return "".join(text.split())


@pytest.mark.requirement("knowledge:chunked-on-ingest")
def test_a_markdown_text_is_cut_at_its_headings_and_each_piece_says_what_is_above_it() -> None:
    pieces = split(HANDBOOK, markdown=True)
    assert [piece.heading for piece in pieces] == ["", "Returns", "Returns > Europe", "Returns > Elsewhere", "Shipping"]
    assert pieces[1].text == "# Returns\n\nGoods come back within 30 days."
    assert "# this is no heading" in pieces[3].text
    assert pieces[4].text.endswith("We ship on Mondays.")


def test_plain_text_has_no_headings() -> None:
    assert split("# one\n\ntwo\n\n# three", markdown=False) == [Chunk("", "# one\n\ntwo\n\n# three")]


def test_a_heading_with_nothing_below_it_goes_with_what_follows() -> None:
    assert split("# A\n\n## B\n\ntext", markdown=True) == [Chunk("A > B", "# A\n\n## B\n\ntext")]
    assert split("text\n\n# A", markdown=True) == [Chunk("", "text"), Chunk("A", "# A")]


@pytest.mark.parametrize("text", ["", " \n\t\n", "\ufeff\r\n"])
def test_a_text_of_blanks_has_no_pieces(text: str) -> None:
    assert split(text, markdown=True) == split(text, markdown=False) == []


def test_a_long_section_is_cut_at_paragraphs_then_sentences_then_words() -> None:
    paragraphs = "\n\n".join(SENTENCE.strip() for _ in range(100))
    for text, ends in ((paragraphs, "."), (SENTENCE * 100, "."), ("word " * 1000, "word")):
        pieces = split(text, markdown=True)
        assert len(pieces) > 2
        assert all(piece.text.endswith(ends) and not piece.text.startswith(" ") for piece in pieces)


@pytest.mark.requirement("knowledge:chunked-on-ingest")
def test_a_piece_begins_with_the_end_of_the_one_before_it() -> None:
    numbered = "".join(f"Sentence number {n} says nothing. " for n in range(200))
    pieces = [piece.text for piece in split(numbered, markdown=False)]
    for before, after in pairwise(pieces):
        first = after[: after.index(".") + 1]
        assert first in before
        assert first.startswith("Sentence number")


def test_code_that_fits_is_not_cut() -> None:
    code = "```python\n" + "\n\n".join(f"line_{n} = {n}" for n in range(30)) + "\n```\n"
    text = SENTENCE * 17 + "\n\n" + code + "\n" + SENTENCE * 20
    assert sum("```python" in piece.text and piece.text.count("```") == 2 for piece in split(text, markdown=True)) == 1


def test_code_that_never_ends_and_words_without_blanks_are_cut_all_the_same() -> None:
    text = "```\n" + "x" * 5000
    pieces = split(text, markdown=True)
    assert all(len(piece.text) <= CHUNK_CHARS for piece in pieces)
    assert flat("".join(piece.text for piece in pieces)) == text.replace("\n", "")


@given(
    st.lists(
        st.one_of(
            st.text(max_size=40),
            st.sampled_from(
                ["# A", "## B", "```", "~~~~", "---", "===", "| a | b |", "\n", "\n\n", SENTENCE * 9, "- x"]
            ),
        ),
        max_size=40,
    ).map("\n".join),
    st.booleans(),
    st.integers(min_value=20, max_value=400),
)
@settings(max_examples=150, deadline=None)
def test_every_piece_is_a_stretch_of_the_text_and_nothing_is_lost(text: str, markdown: bool, size: int) -> None:
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    pieces = split(text, markdown=markdown, size=size, overlap=size // 4)
    covered = 0
    for piece in pieces:
        assert 0 < len(piece.text) <= size
        # Where it is there several times, the last place that leaves no gap but blanks.
        wanted = covered + len(text[covered:]) - len(text[covered:].lstrip())
        start = text.rfind(piece.text, 0, wanted + len(piece.text))
        assert start >= 0
        covered = max(covered, start + len(piece.text))
    assert not text[covered:].strip()


@pytest.mark.parametrize(
    "text",
    ["```\nx\n```\n" * 100_000, "# h\n" * 200_000, "# " + "# " * 400_000, "a\n---\n" * 150_000, "~" * 1_000_000],
)
def test_a_hostile_text_takes_no_longer_than_another(text: str) -> None:
    began_s = time.process_time()
    split(text, markdown=True)
    assert time.process_time() - began_s < 5


@pytest.mark.parametrize(
    ("name", "markdown"), [("a.md", True), ("A.MARKDOWN", True), ("a.txt", False), ("md", False), ("a.md.txt", False)]
)
def test_a_documents_name_says_whether_it_is_markdown(name: str, markdown: bool) -> None:
    assert is_markdown(name) is markdown
