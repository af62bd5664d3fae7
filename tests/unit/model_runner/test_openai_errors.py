import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitemesh_model_runner.openai_errors import fault_of, known_fault


@pytest.mark.requirement("routing:context-length")
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"error":{"message":"m","type":"invalid_request_error","code":"context_length_exceeded"}}', "context"),
        (b'{"error":{"code":400,"type":"exceed_context_size_error"}}', "context"),
        (b'{"error":{"code":"model_not_found"}}', "model"),
        (b'{"object":"error","message":"m","type":"context_length_exceeded","code":400}', "context"),
        (b'{"error":"context_length_exceeded","code":"CONTEXT_LENGTH_EXCEEDED"}', "context"),
        (b'{"error":{"message":"context_length_exceeded","code":"other","type":null}}', None),
        (b'{"error":{"code":["context_length_exceeded"],"type":{}}}', None),
        (b'{"error":{}}', None),
        (b'{"error":[]}', None),
        (b"{}", None),
        (b"[]", None),
        (b"<html>context_length_exceeded</html>", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
        (b"", None),
    ],
)
def test_only_known_words_in_their_places_count(body: bytes, expected: str | None) -> None:
    assert fault_of(body) == expected


@given(body=st.binary())
def test_no_body_is_too_odd(body: bytes) -> None:
    assert fault_of(body) is None


NESTED = st.recursive(
    st.none() | st.text() | st.integers(),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(), each, max_size=3),
)


@given(error=NESTED)
def test_no_error_is_too_odd(error: object) -> None:
    assert known_fault(error) is None
