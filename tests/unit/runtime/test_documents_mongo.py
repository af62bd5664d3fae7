"""Structs as documents."""

from datetime import UTC, datetime

import bson
import pytest
from msgspec import Struct

from kitemesh_contracts.errors import BadRequest, Bug, ErrorCode
from kitemesh_runtime.documents_mongo import DOCUMENT_MAX_BYTES, encode, from_document, take_time, to_document


class _Thing(Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    data: bytes = b""
    at_s: float = 0.0


def test_bytes_stay_bytes_and_the_id_is_the_documents_name() -> None:
    document = to_document(_Thing(id="a", data=b"\x00\xff"))
    assert document == {"_id": "a", "data": b"\x00\xff"}
    assert from_document(bson.decode(encode(document).raw), _Thing) == _Thing(id="a", data=b"\x00\xff")


def test_fields_that_the_struct_does_not_have_are_left_out() -> None:
    assert from_document({"_id": "a", "live": True}, _Thing) == _Thing(id="a")


def test_a_document_that_is_no_such_struct_is_a_bug_that_names_a_place_and_no_content() -> None:
    with pytest.raises(Bug, match=r"_Thing.*\$\.data") as raised:
        from_document({"_id": "a", "data": {"secret": 1}}, _Thing)
    assert "secret" not in raised.value.message


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"_id": "\ud800"}, ErrorCode.REQUEST_INVALID),
        ({"_id": 2**64}, ErrorCode.REQUEST_INVALID),
        ({"_id": "a", "data": b"x" * DOCUMENT_MAX_BYTES}, ErrorCode.REQUEST_TOO_LARGE),
    ],
    ids=["surrogate", "number", "size"],
)
def test_what_cannot_be_stored_is_the_callers_mistake(document: dict[str, object], code: ErrorCode) -> None:
    with pytest.raises(BadRequest) as raised:
        encode(document)
    assert raised.value.code is code


def test_a_date_becomes_seconds_and_none_stays_none() -> None:
    document: dict[str, object] = {"at": datetime(1970, 1, 1, 0, 0, 1, 500_000, UTC), "at_s": 9.0}
    take_time(document, "at", "at_s")
    take_time(document, "until", "until_s")
    assert document == {"at_s": 1.5}


def test_what_should_be_a_date_and_is_none_is_a_bug() -> None:
    with pytest.raises(Bug, match="at is no date"):
        take_time({"at": "yesterday"}, "at", "at_s")
