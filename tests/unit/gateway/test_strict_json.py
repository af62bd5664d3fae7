import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitemesh_contracts.errors import BadRequest, ErrorCode
from kitemesh_gateway import strict_json

REFUSED = [
    (b"", "it is empty"),
    (b"   ", "expecting value at character 3"),
    (b"\xef\xbb\xbf{}", "it begins with a byte order mark"),
    (b'{"a":"\xff"}', "it is not UTF-8 at byte 6"),
    (b'"\xed\xa0\x80"', "it is not UTF-8 at byte 1"),
    (b'{"a":1', "expecting ',' delimiter at character 6"),
    (b"{'a':1}", "expecting property name enclosed in double quotes at character 1"),
    (b"{} {}", "extra data at character 3"),
    (b'{"a":NaN}', "NaN is not a JSON number"),
    (b'{"a":-Infinity}', "-Infinity is not a JSON number"),
    (b'{"a":1e400}', "a number is out of range"),
    (b'{"a":-1e999}', "a number is out of range"),
    (b'{"a":9223372036854775808}', "an integer does not fit into 64 bits"),
    (b'{"a":-9223372036854775809}', "an integer does not fit into 64 bits"),
    (b"[" + b"1" * 6000 + b"]", "an integer does not fit into 64 bits"),
    (b'{"a":1,"b":{"c":1,"c":2}}', "an object has the same name twice"),
    (b'"\\ud800"', "a string holds half of a surrogate pair"),
    (b'{"\\udfff":1}', "a string holds half of a surrogate pair"),
    (b"[" * 33 + b"]" * 33, "it is nested deeper than 32 levels"),
    (b'{"a":' * 33 + b"1" + b"}" * 33, "it is nested deeper than 32 levels"),
    (b"[" * 100_000 + b"]" * 100_000, "it is nested deeper than 32 levels"),
    (b'"a\x00b"', "invalid control character at at character 2"),
]


@pytest.mark.requirement("http:strict-json")
@pytest.mark.parametrize(("data", "why"), REFUSED, ids=range(len(REFUSED)))
def test_what_another_parser_might_read_differently_is_refused_with_its_reason(data: bytes, why: str) -> None:
    with pytest.raises(BadRequest) as refused:
        strict_json.decode(data)
    assert refused.value.code is ErrorCode.REQUEST_MALFORMED
    assert refused.value.message == f"The body is not valid JSON: {why}"


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b' {"a": [1, -2.5, true, null, "\\ud83d\\ude00"]}\n', {"a": [1, -2.5, True, None, "\U0001f600"]}),
        (b"[" * 32 + b"]" * 32, None),
        (b"9223372036854775807", 2**63 - 1),
        ("Grüße".join('""').encode(), "Grüße"),
        (b"[" + b"[],{}," * 100 + b"1]", None),
    ],
    ids=range(5),
)
def test_ordinary_json_is_read(data: bytes, value: object) -> None:
    read = strict_json.decode(data)
    assert value is None or read == value


@pytest.mark.requirement("http:strict-json")
@pytest.mark.parametrize(
    "data",
    [
        b"[" + b"1," * strict_json.MAX_VALUES + b"1]",
        b"[" + b"{}," * strict_json.MAX_VALUES + b"1]",
        b"[" * strict_json.MAX_VALUES * 2,
        b'["' + b'","' * strict_json.MAX_VALUES + b'"]',
        b'["\\\\",' + b"1," * strict_json.MAX_VALUES + b"1]",
        b'"' * 5 * strict_json.MAX_VALUES + b"," * 2 * strict_json.MAX_VALUES,
    ],
)
def test_a_body_of_too_many_values_is_refused_before_it_is_decoded(data: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        strict_json.decode(data)
    assert refused.value.code is ErrorCode.REQUEST_TOO_LARGE


@pytest.mark.requirement("http:strict-json")
@pytest.mark.parametrize("piece", [",[{", '",', '\\",{', "\\\\\\,"])
def test_what_strings_say_counts_as_no_value(piece: str) -> None:
    value = {"text": piece * strict_json.MAX_VALUES}
    assert strict_json.decode(json.dumps(value).encode()) == value


@pytest.mark.requirement("http:strict-json")
@given(st.binary(max_size=200))
def test_no_bytes_whatever_raise_anything_but_a_refusal(data: bytes) -> None:
    with contextlib.suppress(BadRequest):
        strict_json.decode(data)
