"""The provider that always says the same."""

from collections.abc import Sequence

import pytest

from kitemesh_contracts.content import Sampling, TextPart, UserMessage
from kitemesh_contracts.deltas import Delta, TextDelta
from kitemesh_model_runner.provider import Generated, ModelCall
from kitemesh_model_runner.provider_fixed import FixedAnswer
from kitemesh_runtime.catalog import CatalogError, FixedProvider, parse


async def test_it_says_its_text_once_whatever_it_is_asked() -> None:
    heard: list[Delta] = []

    async def sink(deltas: Sequence[Delta]) -> None:
        heard.extend(deltas)

    messages = (UserMessage(parts=(TextPart(text="@fail upstream.failed"),)),)
    call = ModelCall(turn="t", step=1, model="m", messages=messages, sampling=Sampling(), budget_s=1.0)
    answer = FixedAnswer(FixedProvider(kind="fixed", text="Back at noon."))
    assert await answer.generate(call, sink) == Generated(finish="stop", usage=None)
    assert heard == [TextDelta(text="Back at noon.")]


def test_a_catalog_must_say_what_it_says() -> None:
    with pytest.raises(CatalogError) as caught:
        parse("{providers: {closed: {kind: fixed}}, models: {m: {provider: closed}}}")
    assert caught.value.problems == ["providers.closed.text: must be set"]
