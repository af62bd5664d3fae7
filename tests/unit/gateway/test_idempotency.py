"""Idempotency keys: which are taken, what is kept of them, what a claim says."""

import hashlib

import pytest

from kitemesh_contracts.errors import BadRequest, ErrorCode
from kitemesh_gateway.dialects.base import Mistakes
from kitemesh_gateway.idempotency import check, claimed_as, read_key
from kitemesh_runtime.claims import Claim


def test_without_the_header_there_is_no_key() -> None:
    assert read_key(()) is None
    assert claimed_as("completions", None, b"{}") is None


@pytest.mark.parametrize("key", ["k", " ", "~", "x" * 255, 'a "quoted" one, with spaces'])
def test_printable_ascii_is_a_key(key: str) -> None:
    assert read_key((key,)) == key


@pytest.mark.requirement("idempotency:key-is-checked")
@pytest.mark.parametrize("given", [[""], ["x" * 256], ["é"], ["a\x7f"], ["a\tb"], ["a\n"], ["a", "a"]])
def test_anything_else_is_refused_and_named(given: list[str]) -> None:
    with pytest.raises(Mistakes) as refused:
        read_key(given)
    assert (refused.value.code, refused.value.param) == (ErrorCode.REQUEST_INVALID, "Idempotency-Key")


def test_neither_the_key_nor_the_body_is_kept() -> None:
    key = claimed_as("completions", "order 7", b'{"model":"m"}')
    assert key is not None
    assert key.kind == "idem-completions"
    assert key.value == hashlib.sha256(b"order 7").hexdigest()
    assert key.fingerprint == hashlib.sha256(b'{"model":"m"}').hexdigest()


def test_a_key_is_its_routes_own() -> None:
    assert claimed_as("a", "k", b"") != claimed_as("b", "k", b"")


@pytest.mark.requirement("idempotency:another-body-is-refused")
def test_a_key_that_stands_for_another_body_is_refused_whoever_has_the_claim() -> None:
    key = claimed_as("completions", "k", b"one")
    assert key is not None
    check(Claim(won=True, turn="t", fingerprint=key.fingerprint), key)
    check(Claim(won=False, turn="t", fingerprint=key.fingerprint), key)
    for won in (True, False):
        with pytest.raises(BadRequest) as refused:
            check(Claim(won=won, turn="t", fingerprint="another"), key)
        assert (refused.value.code, refused.value.status) == (ErrorCode.IDEMPOTENCY_MISMATCH, 422)
