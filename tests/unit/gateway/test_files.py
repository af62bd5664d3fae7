from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from kitemesh_contracts.content import FilePart
from kitemesh_gateway.dialects.files import (
    MAX_BINARY_BYTES,
    MAX_TEXT_BYTES,
    Files,
    Source,
    is_image,
    is_text,
    read_bytes,
    read_source,
)

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
JPEG = b"\xff\xd8\xff\xe0" + bytes(8)
GIF = b"GIF89a" + bytes(8)
WEBP = b"RIFF\x08\0\0\0WEBPVP8 "
PDF = b"%PDF-1.7\n%%EOF\n"


def uri(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{b64encode(data).decode()}"


def refused(text: str, media_type: str = "", name: str = "") -> str:
    with pytest.raises(PydanticCustomError) as error:
        read_source(text, media_type=media_type, name=name)
    return error.value.message()


@pytest.mark.requirement("files:kinds")
@pytest.mark.parametrize(
    ("text", "source"),
    [
        (uri("image/png", PNG), Source("image/png", PNG)),
        (uri("image/jpg", JPEG), Source("image/jpeg", JPEG)),
        (uri("IMAGE/GIF", GIF), Source("image/gif", GIF)),
        (uri("image/webp", WEBP), Source("image/webp", WEBP)),
        (uri("image/png", JPEG), Source("image/jpeg", JPEG)),
        (uri("application/pdf", PDF), Source("application/pdf", PDF)),
        (uri("text/markdown;charset=UTF-8", "# Grüße".encode()), Source("text/markdown", "# Grüße".encode())),
        (uri("application/json", b"{}"), Source("application/json", b"{}")),
        ("data:,A%20b", Source("text/plain", b"A b")),
        ("data:text/*,A", Source("text/plain", b"A")),
        ("DATA:text/csv,a%2Cb", Source("text/csv", b"a,b")),
    ],
)
def test_a_data_uri_is_read_as_what_its_bytes_are(text: str, source: Source) -> None:
    assert read_source(text) == source


@pytest.mark.requirement("files:kinds")
@pytest.mark.parametrize(
    ("text", "media_type", "name", "source"),
    [
        ("https://a.example/cat.png?x=1", "", "", Source("", url="https://a.example/cat.png?x=1")),
        ("https://a.example/1", "image/*", "", Source("", url="https://a.example/1")),
        ("HTTPS://A.EXAMPLE:8443/1", "image/png", "", Source("image/png", url="HTTPS://A.EXAMPLE:8443/1")),
        ("https://a.example/1", "application/pdf", "", Source("application/pdf", url="https://a.example/1")),
        ("https://a.example/1", "", "report.pdf", Source("application/pdf", url="https://a.example/1")),
        ("https://xn--bcher-kva.example", "", "", Source("", url="https://xn--bcher-kva.example")),
    ],
)
def test_an_address_is_passed_on(text: str, media_type: str, name: str, source: Source) -> None:
    assert read_source(text, media_type=media_type, name=name) == source


def test_what_a_data_uri_says_of_itself_counts_more_than_what_stands_beside_it() -> None:
    assert read_source(uri("text/csv", b"a"), media_type="text/plain").media_type == "text/csv"
    assert read_source("data:;base64,YQ==", media_type="text/csv").media_type == "text/csv"


@pytest.mark.requirement("files:limits")
@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "must be an https:// address or a data: URI"),
        ("http://a.example/1", "must be an https:// address or a data: URI"),
        ("file:///etc/passwd", "must be an https:// address or a data: URI"),
        ("data:image/png;base64", "is not a data URI"),
        ("data:" + "x" * 300 + ",", "is not a data URI"),
        ("data:image/png;base64,", "is an empty file"),
        ("data:image/png;base64,iVBORw0KGgo", "is not valid base64"),
        ("data:image/png;base64,iVBO\nRw0KGgo=", "is not valid base64"),
        ("data:image/png;base64,ä", "is not valid base64"),
        (uri("image/png", b"nothing"), "is not a PNG, JPEG, GIF or WebP image"),
        (uri("image/svg+xml", b"<svg/>"), "must be a PNG, JPEG, GIF or WebP image, a PDF or a text"),
        (uri("application/zip", b"PK"), "must be a PNG, JPEG, GIF or WebP image, a PDF or a text"),
        (uri("nonsense", b"PK"), "must be a PNG, JPEG, GIF or WebP image, a PDF or a text"),
        (uri("application/pdf", PNG), "is not a PDF"),
        (uri("text/plain", b"\xff"), "must be a text in UTF-8"),
        (uri("text/plain;charset=latin1", b"a"), "must be a text in UTF-8"),
        (uri("text/plain", b"a\0"), "is not a text"),
    ],
)
def test_what_is_no_file_that_is_taken_is_refused(text: str, what: str) -> None:
    assert refused(text) == what


@pytest.mark.requirement("files:limits")
@pytest.mark.parametrize(
    ("media_type", "begin", "most", "what"),
    [
        ("image/png", PNG, MAX_BINARY_BYTES, "must have at most 10 MiB"),
        ("application/pdf", PDF, MAX_BINARY_BYTES, "must have at most 10 MiB"),
        ("text/plain", b"", MAX_TEXT_BYTES, "must have at most 256 KiB"),
    ],
)
def test_a_file_has_at_most_so_many_bytes(media_type: str, begin: bytes, most: int, what: str) -> None:
    whole = begin.ljust(most, b"a")
    assert read_source(uri(media_type, whole)).data == whole
    assert refused(uri(media_type, whole + b"a")) == what
    assert refused(uri(media_type, whole * 2)) == what


@pytest.mark.requirement("files:public-addresses")
@pytest.mark.parametrize(
    "host",
    [
        *(
            "localhost",
            "localhost.",
            "intern",
            "db.local",
            "db.internal.",
            "x.corp",
            "a.localhost",
            "1.0.0.127.in-addr.arpa",
        ),
        *("127.0.0.1", "10.1", "169.254.169.254", "8.8.8.8", "2130706433", "0x7f.1", "0x7f000001", "a..example"),
        *("-a.example", "a.example..", "a.-b", "a.0x7f"),
    ],
)
def test_an_address_must_name_a_public_host(host: str) -> None:
    assert refused(f"https://{host}/1.png") == "must name a public host"


@pytest.mark.requirement("files:public-addresses")
@pytest.mark.parametrize(
    "address",
    [
        *("https://", "https:///a", "https://[::1]/", "https://me@a.example/", "https://me:x@a.example/"),
        *("https://a.example/a b", "https://a.example/\n", "https://a.example\\@b/", "https://a.example/ü"),
        *("https://a.example:port/", "https://a.example%2f@b/", "https://a_b.example/", "https://a.example#f"),
    ],
)
def test_an_address_has_nothing_that_two_readers_could_read_differently(address: str) -> None:
    assert refused(address) == "must be an https:// address of ASCII characters, without user, blanks and backslashes"


def test_a_long_address_and_the_address_of_a_text_are_refused() -> None:
    assert refused("https://a.example/" + "a" * 2048) == "must have at most 2048 characters"
    assert refused("https://a.example/", "text/plain") == "must be a data URI: a text is not fetched from an address"


@pytest.mark.requirement("files:kinds")
def test_bare_base64_is_what_the_name_of_the_file_says() -> None:
    assert read_bytes(b64encode(PDF).decode(), name="A report.PDF") == Source("application/pdf", PDF)
    assert read_bytes(uri("image/gif", GIF), name="a.pdf") == Source("image/gif", GIF)
    for name in ("", "pdf", "a.exe"):
        with pytest.raises(PydanticCustomError, match="the name of the file does not say its type"):
            read_bytes(b64encode(PDF).decode(), name=name)


@pytest.mark.requirement("files:stored-once")
def test_the_same_bytes_are_collected_once_and_named_by_their_place() -> None:
    files = Files()
    assert [
        files.add(Source("image/png", PNG), detail="low"),
        files.add(Source("", url="https://a.example/1")),
        files.add(Source("application/pdf", PDF), name="a.pdf"),
        files.add(Source("image/png", PNG)),
    ] == [
        FilePart(media_type="image/png", blob="#0", size=len(PNG), detail="low"),
        FilePart(media_type="", url="https://a.example/1"),
        FilePart(media_type="application/pdf", blob="#1", size=len(PDF), name="a.pdf"),
        FilePart(media_type="image/png", blob="#0", size=len(PNG)),
    ]
    assert files.all() == (PNG, PDF)


def test_what_does_not_say_its_type_is_an_image() -> None:
    assert [is_image(each) for each in ("", "image/png", "application/pdf", "text/plain")] == [True, True, False, False]
    assert [is_text(each) for each in ("", "application/json", "text/x", "application/pdf")] == [
        False,
        True,
        True,
        False,
    ]


@given(st.text() | st.text().map(lambda text: "data:" + text) | st.text().map(lambda text: "https://" + text))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (read_source, lambda each: read_bytes(each, name="a.png")):
        try:
            source = read(text)
        except PydanticCustomError:
            continue
        assert (source.data is None) != (source.url is None)
