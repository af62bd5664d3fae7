"""API keys as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitemesh_runtime import keyring

ENTROPY = st.binary(min_size=keyring.ENTROPY_BYTES, max_size=keyring.ENTROPY_BYTES)


@given(ENTROPY)
def test_a_key_names_its_id_and_is_recognised(entropy: bytes) -> None:
    made = keyring.make(entropy)
    assert len(made.text) == 60
    assert keyring.parse(made.text) == made.id


@given(ENTROPY, st.integers(min_value=3, max_value=59), st.sampled_from("AZaz09_-"))
def test_a_typing_error_is_refused_without_a_lookup(entropy: bytes, place: int, wrong: str) -> None:
    text = keyring.make(entropy).text
    mistyped = text[:place] + wrong + text[place + 1 :]
    assert (keyring.parse(mistyped) is None) == (mistyped != text)


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    assert keyring.parse(text) is None
    assert keyring.parse("km_" + text + "\n") is None


@pytest.mark.requirement("key:shown-once")
@given(ENTROPY, st.binary(min_size=1), st.binary(min_size=1))
def test_a_digest_depends_on_the_key_and_the_pepper(entropy: bytes, pepper: bytes, other: bytes) -> None:
    text = keyring.make(entropy).text
    digest = keyring.digest(text, pepper)
    assert len(digest) == 64
    assert text[11:54] not in digest
    assert keyring.digest(text + "x", pepper) != digest
    if pepper.rstrip(b"\0") != other.rstrip(b"\0"):
        assert keyring.digest(text, other) != digest
