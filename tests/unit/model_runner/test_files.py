"""Which files of a prompt a model is shown, and what is said in the place of the others."""

from typing import Final

import pytest

from kitemesh_contracts.content import AssistantMessage, FilePart, Message, TextPart, UserMessage
from kitemesh_model_runner import files as files_module
from kitemesh_model_runner.files import Files
from kitemesh_runtime.blobs_memory import MemoryBlobs
from kitemesh_runtime.clock import SystemClock

HELLO: Final = TextPart(text="look")


@pytest.fixture
def blobs() -> MemoryBlobs:
    return MemoryBlobs(SystemClock())


def message(*parts: TextPart | FilePart) -> UserMessage:
    return UserMessage(parts=parts)


async def stored(blobs: MemoryBlobs, data: bytes, media_type: str = "image/png", name: str = "a.png") -> FilePart:
    blob = await blobs.put("acme", data, keep_s=60.0)
    return FilePart(media_type=media_type, name=name, blob=blob, size=len(data))


async def test_a_prompt_without_files_is_left_as_it_is(blobs: MemoryBlobs) -> None:
    prompt: tuple[Message, ...] = (message(HELLO), AssistantMessage(text="so?"))
    assert await Files(blobs).fetch("acme", prompt, None) == (prompt, {})


@pytest.mark.requirement("provider:files")
async def test_the_bytes_of_every_blob_come_with_the_prompt_and_addresses_stay(blobs: MemoryBlobs) -> None:
    image = await stored(blobs, b"pixels")
    address = FilePart(media_type="image/jpeg", url="https://example.org/b.jpg")
    prompt: tuple[Message, ...] = (message(HELLO, image, address), AssistantMessage(text="so?"), message(image))
    shown = await Files(blobs).fetch("acme", prompt, None)
    assert shown.messages == prompt
    assert shown.files == {image.blob: b"pixels"}


async def test_of_a_file_that_is_gone_or_anothers_only_its_name_is_told(blobs: MemoryBlobs) -> None:
    image = await stored(blobs, b"pixels")
    shown = await Files(blobs).fetch("other", (message(HELLO, image),), None)
    assert shown.messages == (message(HELLO, TextPart(text="(The file a.png is not kept any more.)")),)
    assert shown.files == {}


@pytest.mark.parametrize(
    ("media_type", "can", "is_shown"),
    [
        ("image/png", ("images",), True),
        ("image/png", ("files",), False),
        ("application/pdf", ("files",), True),
        ("application/pdf", ("images", "tools"), False),
        ("text/plain", (), True),
        ("application/pdf", None, True),
    ],
)
async def test_a_model_is_shown_what_it_can_see_and_told_of_the_rest(
    blobs: MemoryBlobs, media_type: str, can: tuple[files_module.Capability, ...] | None, is_shown: bool
) -> None:
    part = await stored(blobs, b"data", media_type, name="")
    shown = await Files(blobs).fetch("acme", (message(part),), can)
    words = TextPart(text=f"(The file {media_type} cannot be shown to this model.)")
    assert shown.messages == (message(part if is_shown else words),)


async def test_the_newest_files_are_shown_as_far_as_a_request_can_hold_them(
    blobs: MemoryBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "FILES_MAX_BYTES", 10)
    old, middle, new = [await stored(blobs, bytes([n]) * 6, name=f"{n}.png") for n in range(3)]
    small = await stored(blobs, b"tiny")
    shown = await Files(blobs).fetch("acme", (message(small), message(old, middle), message(new)), None)
    assert set(shown.files.values()) == {b"\x02" * 6, b"tiny"}
    assert shown.messages[1] == message(
        TextPart(text="(The file 0.png is not shown again.)"), TextPart(text="(The file 1.png is not shown again.)")
    )
