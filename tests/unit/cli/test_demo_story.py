import re

import pytest

from kitemesh_cli.demo_story import SCRIPT, Story

WORDS = re.findall(r"\S+\s*", SCRIPT)


def told(words: list[str], finish: str | None = "stop") -> Story:
    story = Story()
    for number, word in enumerate(words):
        story.add(f"1.1.{number}", word, None)
    story.add("1.1.end", "", finish)
    return story


def test_the_whole_script_in_pieces_is_exact() -> None:
    story = told(WORDS)
    assert story.problems() == []
    assert story.share == 1.0


def at(words: list[str]) -> str:
    return f"the text is not the script: it differs from character {len(''.join(words)) + 1} on"


@pytest.mark.parametrize(
    ("words", "finish", "problem"),
    [
        pytest.param([*WORDS[:7], *WORDS[8:]], "stop", at(WORDS[:7]), id="a gap"),
        pytest.param([*WORDS[:7], *WORDS[6:]], "stop", at(WORDS[:7]), id="a repeat"),
        pytest.param(WORDS[:-1], "stop", at(WORDS[:-1]), id="a missing end"),
        pytest.param([*WORDS, "More."], "stop", at(WORDS), id="more than the script"),
        pytest.param(WORDS, None, "the answer ended with nothing", id="no end"),
        pytest.param(WORDS, "length", "the answer ended with length", id="another end"),
    ],
)
def test_what_is_not_exact_is_told(words: list[str], finish: str | None, problem: str) -> None:
    assert told(words, finish).problems() == [problem]


def test_an_event_that_comes_twice_is_told_even_without_text() -> None:
    story = told(WORDS)
    story.add("1.1.end", "", "stop")
    assert story.problems() == ["an event came twice"]


def test_silence_is_counted_for_the_newest_death_only_and_only_text_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 2.0, 3.0, 6.5, 7.0, 8.0, 8.25])
    monkeypatch.setattr("kitemesh_cli.demo_story.time.monotonic", lambda: next(now))
    story = Story()
    story.add("a", "one ", None)
    story.struck("runner")
    story.add("b", "", None)
    story.add("c", "two ", None)
    story.add("d", "three ", None)
    story.struck("gateway")
    story.add("e", "four ", None)
    assert story.silences_ms == {"runner": 4500.0, "gateway": 250.0}
