"""What becomes of a text: inline, a blob, or an error; never a part of it."""

import pytest

from kitemesh_contracts.content import CallResult
from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_runtime.stores_memory import memory_stores
from kitemesh_tool_executor import results
from kitemesh_tool_executor.results import EMERGENCY_MAX_BYTES, INLINE_MAX_BYTES, Results

MAX = 1024 * 1024


class Away:
    """Blobs that cannot be reached for a while."""

    def __init__(self, times: int) -> None:
        self._left = times
        self._blobs = memory_stores().blobs

    async def put(self, tenant: str, data: bytes, *, keep_s: float) -> str:
        if self._left:
            self._left -= 1
            raise Unavailable(ErrorCode.STORE_DOWN, "the store does not answer")
        return await self._blobs.put(tenant, data, keep_s=keep_s)

    async def get(self, tenant: str, blob: str) -> bytes | None:
        return await self._blobs.get(tenant, blob)


async def make(blobs: Away, text: str, *, patient: bool = False) -> CallResult:
    return await Results(blobs).make("acme", "c", text, max_bytes=MAX, patient=patient)


@pytest.mark.parametrize(("size", "inline"), [(0, True), (INLINE_MAX_BYTES, True), (INLINE_MAX_BYTES + 1, False)])
async def test_short_texts_travel_and_long_ones_are_stored(size: int, *, inline: bool) -> None:
    blobs = Away(0)
    result = await make(blobs, "x" * size)
    assert (result.blob is None, result.error) == (inline, None)
    if result.blob is not None:
        assert await blobs.get("acme", result.blob) == b"x" * size


@pytest.mark.parametrize(("size", "travels"), [(EMERGENCY_MAX_BYTES, True), (EMERGENCY_MAX_BYTES + 1, False)])
async def test_while_the_store_is_down_a_text_of_no_effect_travels_if_it_can(size: int, *, travels: bool) -> None:
    result = await make(Away(99), "x" * size)
    assert result.text == ("x" * size if travels else "")
    assert (result.error is None) == travels


async def test_the_result_of_an_effect_waits_for_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "BACKOFF_S", 0.0)
    blobs = Away(5)
    result = await make(blobs, "x" * 500_000, patient=True)
    assert result.blob is not None
    assert await blobs.get("acme", result.blob) == b"x" * 500_000


async def test_the_limit_is_of_bytes() -> None:
    assert (await make(Away(0), "ü" * (MAX // 2))).error is None
    assert (await make(Away(0), "ü" * (MAX // 2) + "x")).error is not None
