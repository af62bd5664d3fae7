"""What an upstream's answer becomes: text, or a failure that says whether to try again."""

import pytest

from kitemesh_contracts.errors import ErrorCode
from kitemesh_tool_executor.http_answer import read_text, refusal, retry_after_s

DATE = "Fri, 02 Jan 2026 03:04:05 GMT"


@pytest.mark.parametrize(
    ("headers", "body", "text"),
    [
        ({"Content-Type": "application/json"}, b'{"a":1}', '{"a":1}'),
        ({"Content-Type": "application/problem+json; charset=utf-8"}, b"{}", "{}"),
        ({"Content-Type": "text/plain; charset=ISO-8859-1"}, b"caf\xe9", "café"),
        ({"Content-Type": "text/plain"}, b"\xff!", "\ufffd!"),
        ({"Content-Type": "text/plain; charset=nonsense"}, b"x", "x"),
        ({"Content-Type": "image/png"}, b"\x89PNG", None),
        ({"Content-Type": "application/octet-stream"}, b"x", None),
        ({"Content-Type": "image/png"}, b"", ""),
        ({"Content-Type": ";;;"}, b"x", "x"),
        ({}, b"x", "x"),
        ({"Content-Encoding": "gzip"}, b"\x1f\x8b", None),
        ({"Content-Encoding": "identity"}, b"x", "x"),
    ],
)
def test_a_body_is_text_or_nothing(headers: dict[str, str], body: bytes, text: str | None) -> None:
    assert read_text(headers, body) == text


@pytest.mark.parametrize(
    ("status", "again"), [(400, False), (404, False), (429, True), (500, False), (502, True), (503, True), (504, True)]
)
def test_a_status_says_whether_to_try_again(status: int, again: bool) -> None:
    failed = refusal(status, {}, b"")
    assert (failed.code, failed.message) == (ErrorCode.TOOL_FAILED, f"The tool answered {status}")
    assert (failed.sent, failed.again, failed.answered) == (True, again, status < 500)


def test_a_refusal_keeps_the_beginning_of_its_text() -> None:
    failed = refusal(422, {"Content-Type": "application/json"}, b" " + b"x" * 1000)
    assert failed.message == "The tool answered 422: " + "x" * 500


def test_a_redirect_tells_no_target() -> None:
    failed = refusal(302, {"Location": "http://10.0.0.1/"}, b"see http://10.0.0.1/")
    assert failed.message == "The tool answered 302"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 0 ", 0.0),
        ("999999999999", 86_400.0),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("\u0661", None),
        ("Fri, 02 Jan 2026 03:05:05 GMT", 60.0),
        ("Thu, 01 Jan 2026 00:00:00 GMT", 0.0),
        ("Fri, 99 Jan 2026 03:05:05 GMT", None),
    ],
)
def test_a_pause_is_read_and_bounded(text: str | None, seconds: float | None) -> None:
    assert retry_after_s({"Date": DATE} if text is None else {"Date": DATE, "Retry-After": text}) == seconds


def test_a_date_means_nothing_without_the_answers_own() -> None:
    assert retry_after_s({"Retry-After": DATE}) is None
