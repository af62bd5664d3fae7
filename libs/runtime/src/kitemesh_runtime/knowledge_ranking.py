"""Which of the passages that a store found are worth showing. Pure.

A store finds what has any of the words. Here a word counts the more, the fewer of the passages have it, so that what is
in all of them, as the small words of any language are, decides nothing.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

from kitemesh_runtime.knowledge import Passage
from kitemesh_runtime.knowledge_words import roots_of, searched_words

_WORTH_SHOWING: Final = 0.5
"""Of what the best passage has."""


def choose(query: str, found: Sequence[Passage], *, count: int, characters: int) -> tuple[Passage, ...]:
    """Return the best passages, best first.

    Args:
        query: What they were found with.
        found: In any order; the same text counts once.
        count: How many at the most.
        characters: How long they may be together; the first may be longer.

    """
    wanted = roots_of(" ".join(searched_words(query)))
    candidates = {passage.text: passage for passage in found}
    roots = {text: wanted & roots_of(f"{each.heading} {text}") for text, each in candidates.items()}
    seen = Counter(each for had in roots.values() for each in had)
    weights = {each: math.log(1 + len(candidates) / times) for each, times in seen.items()}
    scores = {text: sum(weights[each] for each in had) for text, had in roots.items()}
    ranked = sorted(candidates.values(), key=lambda passage: (scores[passage.text], passage.score), reverse=True)
    chosen: list[Passage] = []
    left = characters
    for passage in ranked[:count]:
        left -= len(passage.text)
        if chosen and (left < 0 or scores[passage.text] < _WORTH_SHOWING * scores[chosen[0].text]):
            break
        chosen.append(passage)
    return tuple(chosen)
