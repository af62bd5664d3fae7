"""pydantic-ai, which validates every field of an answer and runs the loop of its own tools."""

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator
from importlib.metadata import version

import openai
import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, NativeOutput
from pydantic_ai.exceptions import ModelAPIError, ModelAuthenticationError, ModelNotFoundError, ModelRateLimitError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from clients import prompts
from clients.broken_streams import check_beginning, read_async_until
from cluster import Cluster

pytestmark = pytest.mark.client("pydantic-ai", version("pydantic-ai-slim"))


class City(BaseModel):
    name: str


def model_of(sdk: openai.AsyncOpenAI, name: str = prompts.MODEL) -> OpenAIChatModel:
    return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=sdk))


@pytest.fixture
async def sdk(cluster: Cluster) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{cluster.origin}/v1", api_key=cluster.key, max_retries=0) as client:
        yield client


@pytest.mark.case("whole answer")
@pytest.mark.requirement("clients:pydantic-ai")
async def test_a_whole_answer_passes_its_validation(sdk: openai.AsyncOpenAI) -> None:
    async with asyncio.timeout(30):
        result = await Agent(model_of(sdk)).run(prompts.COUNT)
    assert result.output.split() == prompts.COUNTED.split()
    assert result.usage.output_tokens == 40
    assert result.response.finish_reason == "stop"


@pytest.mark.case("streamed answer")
@pytest.mark.requirement("clients:pydantic-ai")
async def test_a_stream_arrives_in_pieces(sdk: openai.AsyncOpenAI) -> None:
    async with (
        asyncio.timeout(30),
        Agent(model_of(sdk)).run_stream(prompts.SLOWLY + prompts.COUNT) as result,
    ):
        pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
    assert "".join(pieces) == prompts.COUNTED
    assert len(pieces) > 5


@pytest.mark.case("usage of a stream")
async def test_a_stream_ends_with_its_usage(sdk: openai.AsyncOpenAI) -> None:
    async with asyncio.timeout(30), Agent(model_of(sdk)).run_stream(prompts.COUNT) as result:
        await result.get_output()
        assert result.usage.output_tokens == 40


@pytest.mark.case("own tools, whole")
async def test_its_loop_runs_both_calls_of_a_step(sdk: openai.AsyncOpenAI) -> None:
    found: list[str] = []

    def find_city(name: str) -> str:
        found.append(name)
        return prompts.find_city(name)

    async with asyncio.timeout(30):
        result = await Agent(model_of(sdk), tools=[find_city]).run(prompts.FIND_TWO)
    assert sorted(found) == ["Oslo", "Rome"]
    assert "Oslo is on the map." in result.output


@pytest.mark.case("own tools, streamed")
async def test_its_loop_goes_on_in_a_stream(sdk: openai.AsyncOpenAI) -> None:
    agent = Agent(model_of(sdk), tools=[prompts.find_city])
    async with asyncio.timeout(30), agent.run_stream(prompts.FIND_TWO) as result:
        assert "Rome is on the map." in await result.get_output()


@pytest.mark.case("structured answer")
async def test_an_output_type_is_filled_by_a_call_or_by_the_answer(sdk: openai.AsyncOpenAI) -> None:
    async with asyncio.timeout(30):
        result = await Agent(model_of(sdk), output_type=City).run('@call final_result {"name": "Rome"}')
        native = await Agent(model_of(sdk), output_type=NativeOutput(City)).run(prompts.DESCRIBE)
    assert result.output == City(name="Rome")
    assert isinstance(native.output, City)


@pytest.mark.case("files")
async def test_an_image_reaches_the_model(sdk: openai.AsyncOpenAI) -> None:
    image = BinaryContent(b64decode(prompts.PIXEL), media_type="image/png")
    async with asyncio.timeout(30):
        result = await Agent(model_of(sdk)).run([prompts.FILES, image])
    assert prompts.PIXEL_TOLD in result.output


@pytest.mark.case("server's tools")
async def test_a_tool_of_the_servers_is_not_seen(sdk: openai.AsyncOpenAI) -> None:
    async with asyncio.timeout(30):
        result = await Agent(model_of(sdk), tools=[prompts.find_city]).run(prompts.FORECAST)
    assert "Paris" in result.output
    assert len(result.all_messages()) == 2


@pytest.mark.case("reasoning")
async def test_reasoning_is_a_part_of_its_own(sdk: openai.AsyncOpenAI) -> None:
    async with asyncio.timeout(30):
        result = await Agent(model_of(sdk)).run(prompts.THINK)
    assert [part.part_kind for part in result.response.parts] == ["thinking", "text"]


@pytest.mark.case("conversation")
async def test_a_history_that_the_client_keeps_is_understood(sdk: openai.AsyncOpenAI) -> None:
    agent = Agent(model_of(sdk), instructions="Be brief.")
    async with asyncio.timeout(30):
        first = await agent.run(prompts.COUNT)
        second = await agent.run(prompts.ROLES, message_history=first.all_messages())
    assert second.output.split()[-3:] == ["user", "assistant", "user"]


@pytest.mark.case("error classes")
@pytest.mark.requirement("clients:error-classes")
async def test_a_refusal_is_the_class_that_its_status_promises(cluster: Cluster, sdk: openai.AsyncOpenAI) -> None:
    async with asyncio.timeout(30):
        with pytest.raises(ModelRateLimitError):
            await Agent(model_of(sdk)).run(prompts.LIMITED)
        with pytest.raises(ModelNotFoundError):
            await Agent(model_of(sdk, "nobody")).run(prompts.COUNT)
        with pytest.raises(ModelAuthenticationError):
            await Agent(model_of(sdk.with_options(api_key="km_wrong"))).run(prompts.COUNT)


@pytest.mark.case("a stream that breaks off")
@pytest.mark.requirement("clients:a-broken-stream-raises")
async def test_a_stream_that_breaks_off_raises(sdk: openai.AsyncOpenAI) -> None:
    async with asyncio.timeout(30), Agent(model_of(sdk)).run_stream(prompts.BROKEN_OFF) as result:
        pieces, _ = await read_async_until(ModelAPIError, result.stream_text(delta=True, debounce_by=None))
    check_beginning(pieces)
