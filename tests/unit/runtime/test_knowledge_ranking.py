"""Which words a search looks for, and which passages are shown."""

import pytest

from kitemesh_runtime.knowledge import Passage, is_name
from kitemesh_runtime.knowledge_ranking import choose
from kitemesh_runtime.knowledge_words import QUERY_MAX_WORDS, roots_of, searched_words, words_of


@pytest.mark.requirement("knowledge:query-is-no-expression")
@pytest.mark.parametrize(
    ("query", "words"),
    [
        ('"return policy" -refund', ["return", "policy", "refund"]),
        ('\\"a\\" --b -"c d" $where {x: 1}', ["a", "b", "c", "d", "where", "x", "1"]),
        ("Rückgabe RÜCKGABE straße", ["rückgabe", "straße"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("snake_case \u2010x \u2212y “z”", ["snake_case", "x", "y", "z"]),
        ("退款政策 是什么?", ["退款", "款政", "政策", "是什", "什么"]),
        ("iPhone手机壳X 税", ["iphone", "手机", "机壳", "x", "税"]),
        ('\x00 \n - " \u2028', []),
    ],
)
def test_a_query_is_words_and_nothing_else(query: str, words: list[str]) -> None:
    assert searched_words(query) == words


def test_of_a_long_query_the_longest_words_are_looked_for() -> None:
    query = " ".join(["a", "of", "extraordinary", *(f"word{n:03}" for n in range(200)), "x" * 100])
    words = searched_words(query)
    assert len(words) == QUERY_MAX_WORDS
    assert words[0] == "extraordinary"
    assert not any(len(word) > 64 for word in words)


def test_forms_of_a_word_have_one_root() -> None:
    assert roots_of("Refunds REFUNDED refund") == {"refun"}
    assert roots_of("Crème créme") == {"creme"}
    assert words_of("a-b\u00a0c") == ["a", "b", "c"]


def passage(text: str, score: float = 1.0) -> Passage:
    return Passage(text, "handbook.md", "", score)


@pytest.mark.requirement("knowledge:ranked-with-source")
def test_what_has_the_rare_words_comes_first_and_what_has_only_the_common_ones_is_left_out() -> None:
    noise = [passage(f"the shop is open on the day number {n}", 9.0) for n in range(8)]
    wanted = [passage("the refund comes within the month"), passage("the refund period is the longest in Europe")]
    chosen = choose("What is the refund period in the shop?", [*noise, *wanted], count=5, characters=6000)
    assert chosen[0] == wanted[1]
    assert set(chosen) <= set(wanted)


def test_no_more_are_chosen_than_fit() -> None:
    found = [passage(f"refund {n} " + "x" * 100) for n in range(10)]
    assert len(choose("refund", found, count=3, characters=6000)) == 3
    assert len(choose("refund", found, count=9, characters=250)) == 2
    assert len(choose("refund", found, count=9, characters=1)) == 1
    assert choose("refund", [], count=3, characters=6000) == ()


def test_where_no_root_is_the_same_the_stores_own_order_stays_and_a_text_counts_once() -> None:
    found = [passage("ran a mile", 1.0), passage("ran two", 2.0), passage("ran two", 2.0)]
    assert [each.text for each in choose("running", found, count=5, characters=99)] == ["ran two", "ran a mile"]


@pytest.mark.parametrize("name", ["", " a", "a ", "a\nb", "a\x00", "x" * 256, "\u202eab"])
def test_a_documents_name_is_printable(name: str) -> None:
    assert not is_name(name)
    assert is_name("docs/hand book (2).md")
