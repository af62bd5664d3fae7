"""The canonical form keeps what arguments mean, or there is none."""

import hashlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitemesh_contracts.canonical import MAX_DEPTH, canonical, sha256
from kitemesh_contracts.errors import BadRequest, ErrorCode

scalars = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",)))
)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)
objects = st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), values, max_size=6)


def nested(depth: int) -> str:
    """Return an object that nests so deep, a number at the bottom."""
    return '{"a":' * depth + "1" + "}" * depth


def exact(value: object) -> object:
    """Return a value that is equal only to one of the same types, signs included."""
    match value:
        case dict():
            return {name: exact(each) for name, each in value.items()}
        case list():
            return [exact(each) for each in value]
        case float():
            return (float, value, math.copysign(1.0, value))
        case _:
            return (type(value), value)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("{}", "{}"),
        ("  {\r\n\t}  ", "{}"),
        ('{"b": 1, "a": [true, null, {"d": 0, "c": ""}]}', '{"a":[true,null,{"c":"","d":0}],"b":1}'),
        ('{"a": 1}', '{"a":1}'),
        ('{"a": 1.0}', '{"a":1.0}'),
        ('{"a": 1.50}', '{"a":1.5}'),
        ('{"a": 1e2}', '{"a":100.0}'),
        ('{"a": 0.1}', '{"a":0.1}'),
        ('{"a": 0.30000000000000004}', '{"a":0.30000000000000004}'),
        ('{"a": 1E-7}', '{"a":1e-7}'),
        ('{"a": 5e-324}', '{"a":5e-324}'),
        ('{"a": 1e23}', '{"a":1e23}'),
        ('{"a": -0.0}', '{"a":-0.0}'),
        ('{"a": 0}', '{"a":0}'),
        ('{"a": 9007199254740993}', '{"a":9007199254740993}'),
        ('{"a": 18446744073709551615}', '{"a":18446744073709551615}'),
        ('{"a": -9223372036854775808}', '{"a":-9223372036854775808}'),
        ('{"\\u0061": "\\u00e9\\/\\ud83d\\ude00\\u0000"}', '{"a":"é/😀\\u0000"}'),
        ('{"é": 1, "e\u0301": 2}', '{"e\u0301":2,"é":1}'),
        ('{"": {"": []}}', '{"":{"":[]}}'),
        (nested(MAX_DEPTH), nested(MAX_DEPTH)),
    ],
)
def test_one_meaning_has_one_form(text: str, form: str) -> None:
    assert canonical(text) == form


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "are not JSON"),
        ("{", "are not JSON"),
        ("{'a': 1}", "are not JSON"),
        ('{"a": 1,}', "are not JSON"),
        ('{"a": 01}', "are not JSON"),
        ('{"a": "\n"}', "are not JSON"),
        ("{} {}", "are not JSON"),
        ("\ufeff{}", "are not JSON"),
        ("null", "are not a JSON object"),
        ("[1]", "are not a JSON object"),
        ('"{}"', "are not a JSON object"),
        ('{"a": NaN}', "that is not finite"),
        ('{"a": -Infinity}', "that is not finite"),
        ('{"a": 1e400}', "that is not finite"),
        ('{"a": 18446744073709551616}', "64 bits"),
        ('{"a": -9223372036854775809}', "64 bits"),
        ('{"a": ' + "9" * 5000 + "}", "64 bits"),
        ('{"a": -0}', "64 bits"),
        ('{"a": 0.1000000000000000055511151231257827}', "64 bits"),
        ('{"a": 12345678901234567890.12}', "64 bits"),
        ('{"a": 1e-400}', "64 bits"),
        ('{"a": 0e99999999999999999999}', "64 bits"),
        ('{"a": 1, "a": 1}', "the same name twice"),
        ('{"a": {"b": 1, "\\u0062": 2}}', "the same name twice"),
        ('{"a": "\\ud83d"}', "surrogate"),
        ('{"\\ude00": 1}', "surrogate"),
        ('{"a": "\ud83d"}', "surrogate"),
        (nested(MAX_DEPTH + 1), "nest too deep"),
        ('{"a":' * MAX_DEPTH + "[]" + "}" * MAX_DEPTH, "nest too deep"),
        (nested(100_000), "nest too deep"),
    ],
    ids=range(30),
)
def test_what_has_no_exact_form_is_refused(text: str, why: str) -> None:
    with pytest.raises(BadRequest, match=why) as caught:
        canonical(text)
    assert caught.value.code == ErrorCode.TOOL_ARGUMENTS


@given(objects, st.randoms(use_true_random=False), st.sampled_from([None, 1, "\t"]), st.booleans())
def test_neither_order_nor_blanks_nor_escapes_change_the_form_and_the_meaning_stays(
    value: dict[str, object], order: object, indent: int | str | None, ascii_only: bool
) -> None:
    names = list(value)
    order.shuffle(names)  # type: ignore[attr-defined]  # hypothesis's Random
    written = json.dumps({name: value[name] for name in names}, indent=indent, ensure_ascii=ascii_only)
    try:
        form = canonical(written)
    except BadRequest as exc:
        assert "surrogate" in exc.message  # noqa: PT017  the names of inner objects may hold one
        return
    assert form == canonical(json.dumps(value))
    assert form == canonical(form)
    assert exact(json.loads(form)) == exact(value)


@given(st.text(max_size=40))
def test_no_text_makes_it_raise_anything_else(text: str) -> None:
    with pytest.raises(BadRequest):
        canonical("[" + text)


def test_the_hash_is_of_the_bytes() -> None:
    assert sha256("é") == hashlib.sha256("é".encode()).hexdigest()
