"""What a gateway shows of the requests in its hands."""

import asyncio

from integration.gateway.rig import ASK, Rig, get, post
from kitemesh_runtime.metrics import REGISTRY


def in_hand() -> float | None:
    return REGISTRY.get_sample_value("kitemesh_http_open")


async def test_a_request_is_in_hand_until_its_answer_is_out(rig: Rig) -> None:
    await rig.ask(get("/v1/models"))
    assert in_hand() == 0
    whole, streaming = rig.client(), rig.client()
    await whole.send(post(ASK))
    first = await rig.cluster.start()
    assert in_hand() == 1
    await streaming.send(post({**ASK, "stream": True}))
    second = await rig.cluster.start()
    assert in_hand() == 2
    rig.cluster.end(first, "Done.")
    assert (await whole.answer()).status == 200
    async with asyncio.timeout(5):
        while in_hand() != 1:
            await rig.cluster.bus.barrier()
    rig.cluster.end(second, "Hello.")
    assert (await streaming.answer()).text == "Hello."
    async with asyncio.timeout(5):
        while in_hand():
            await rig.cluster.bus.barrier()
