"""Words of a text, as searches and rankings count them. Pure; letters and digits of any script, and nothing else.

Where a script puts no blanks between its words, each two neighbouring characters count as one.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

QUERY_MAX_CHARS: Final = 16_000
QUERY_MAX_WORDS: Final = 32
WORD_MAX_CHARS: Final = 64
_ROOT_CHARS: Final = 5
_CACHED_BELOW: Final = 0x3000
_PAIR: Final = 2
_UNSPACED: Final = re.compile(
    # Thai and Lao, Burmese, Khmer, the Japanese syllables, and Chinese characters.
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]+"
)


class _Separators(dict[int, str]):
    """Turns what belongs to no word into a blank. Marks do belong to words: many scripts write vowels with them."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kept = character if character == "_" or unicodedata.category(character)[0] in "LNM" else " "
        # Bounded: a text may hold every character there is.
        if code < _CACHED_BELOW:
            self[code] = kept
        return kept


_SEPARATORS: Final = _Separators()


def words_of(text: str) -> list[str]:
    """Return the words of a text, in order and as they are written."""
    words = text.translate(_SEPARATORS).split()
    return [piece for word in words for piece in _pieces(word)] if is_unspaced(text) else words


def is_unspaced(text: str) -> bool:
    """Tell whether some of a text is in a script that puts no blanks between words."""
    return _UNSPACED.search(text) is not None


def searched_words(query: str) -> list[str]:
    """Return what a search looks for: each word once; of a long query the longest, which say most."""
    words = list(
        dict.fromkeys(word.lower() for word in words_of(query[:QUERY_MAX_CHARS]) if len(word) <= WORD_MAX_CHARS)
    )
    if len(words) > QUERY_MAX_WORDS:
        longest = set(sorted(words, key=len, reverse=True)[:QUERY_MAX_WORDS])
        words = [word for word in words if word in longest]
    return words


def roots_of(text: str) -> set[str]:
    """Return what the forms of each word have in common, roughly: its first letters, without case and accents."""
    plain = text.casefold()
    if not plain.isascii():
        plain = "".join(each for each in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(each))
    return {word[:_ROOT_CHARS] for word in words_of(plain)}


def _pieces(word: str) -> Iterator[str]:
    end = 0
    for run in _UNSPACED.finditer(word):
        if run.start() > end:
            yield word[end : run.start()]
        end = run.end()
        yield from (word[at : at + _PAIR] for at in range(run.start(), max(run.start() + 1, end - 1)))
    if end < len(word):
        yield word[end:]
