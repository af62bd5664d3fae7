"""What a chat request brings beside words, as it leaves the gateway."""

from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from integration.bus.rig import OwnServer
from integration.gateway.rig import ASK, TENANT, Rig, open_rig, post
from kitemesh_contracts.content import FilePart, TextPart, UserMessage
from kitemesh_runtime.catalog import Catalog

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
GROUP = "123e4567-e89b-12d3-a456-426614174000"
CATALOG = Catalog.model_validate(
    {
        "providers": {"p": {"kind": "scripted"}},
        "models": {
            "words": {"provider": "p", "can": []},
            "eyes": {"provider": "p", "can": ["images", "tools"]},
        },
        "groups": {GROUP: {"models": ["words", "eyes"]}},
    },
)
LOOK: dict[str, Any] = {
    "role": "user",
    "content": [
        {"type": "text", "text": "Look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + b64encode(PNG).decode()}},
    ],
}


@pytest.fixture
async def rig(gateway_server: OwnServer, tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(gateway_server.url, tmp_path, replica="gw-features", catalog=CATALOG) as rig:
        yield rig


@pytest.mark.requirement("completions:files", "files:stored-once", "completions:metadata-is-kept")
async def test_files_are_stored_once_and_travel_by_name(rig: Rig) -> None:
    client = rig.client()
    body = {"model": "eyes", "messages": [LOOK, {"role": "assistant", "content": "A cat"}, LOOK]}
    await client.send(post({**body, "metadata": {"ticket": "T-1"}}))
    start = await rig.cluster.start()
    first, _, last = start.input
    assert first == last
    assert isinstance(first, UserMessage)
    text, image = first.parts
    assert text == TextPart(text="Look")
    assert isinstance(image, FilePart)
    assert (image.media_type, image.size) == ("image/png", len(PNG))
    assert image.blob is not None
    assert await rig.stores.blobs.get(TENANT, image.blob) == PNG
    assert start.details == '{"metadata":{"ticket":"T-1"}}'
    rig.cluster.end(start, "Two cats")
    assert (await client.answer()).status == 200


@pytest.mark.requirement("completions:what-the-model-can")
async def test_a_request_goes_only_to_models_that_can_do_what_it_asks_for(rig: Rig) -> None:
    client = rig.client()
    await client.send(post({"model": f"group:{GROUP}", "messages": [LOOK]}))
    start = await rig.cluster.start()
    assert start.route.models == ("eyes",)
    rig.cluster.end(start, "A cat")
    assert (await client.answer()).status == 200
    plain = rig.client()
    await plain.send(post({"model": f"group:{GROUP}", "messages": ASK["messages"]}))
    start = await rig.cluster.start()
    assert start.route.models == ("words", "eyes")
    rig.cluster.end(start, "Hello")
    assert (await plain.answer()).status == 200


@pytest.mark.requirement("completions:what-the-model-can")
async def test_what_no_model_can_do_is_refused_with_every_field_that_asks_for_it(rig: Rig) -> None:
    answer = await rig.ask(post({"model": "words", "messages": [LOOK], "n": 2, "reasoning_effort": "low"}))
    what = "the model cannot do that"
    assert answer.status == 400
    assert (answer.error["code"], answer.error["param"]) == ("request.invalid", "messages")
    assert answer.error["message"] == f"messages: {what}; n: {what}; reasoning_effort: {what}"
    assert rig.cluster.starts.empty()
