"""`POST /run/api/chat` over HTTP: what of a request goes with its turn, and what an answer is when there is none."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from integration.bus.rig import OwnServer
from integration.gateway.rig import CATALOG, TENANT, Answer, Rig, key_record, open_rig, post
from kitemesh_contracts.commands import StartTurn
from kitemesh_contracts.errors import ErrorCode
from kitemesh_runtime import keyring
from kitemesh_runtime.catalog import Catalog
from ui_message import UiMessage

PATH = "/run/api/chat"
GREETER = {
    "model": "scripted",
    "prompt": "You speak to {{name}}, who is {{age}}.",
    "headers_schema": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name"],
    },
}
GREETED = keyring.make(bytes(range(1, 41)))


@pytest.fixture
async def rig(gateway_server: OwnServer, tmp_path: Path) -> AsyncIterator[Rig]:
    content = CATALOG.model_dump(exclude_none=True)
    content["agents"]["greeter"] = GREETER
    catalog = Catalog.model_validate(content | {"default_model": "scripted"})
    async with open_rig(gateway_server.url, tmp_path, replica="gw-run-chat", catalog=catalog) as opened:
        await opened.stores.keys.put(TENANT, key_record(GREETED, default_agent="greeter"))
        yield opened


def asking(text: str = "Hi", **more: Any) -> bytes:
    key = more.pop("key", GREETED.text)
    return post({"messages": [{"role": "user", "content": text}], **more}, path=PATH, key=key)


async def exchanged(rig: Rig, **more: Any) -> tuple[StartTurn, Answer]:
    answering = asyncio.ensure_future(rig.ask(asking(**more)))
    start = await rig.cluster.start()
    rig.cluster.end(start, "Hello")
    return start, await answering


@pytest.mark.requirement("run-chat:default-agent")
async def test_the_keys_default_agent_answers_and_without_one_the_default_model(rig: Rig) -> None:
    start, answer = await exchanged(rig, headers={"name": "Ada"})
    assert start.route.agent == "greeter"
    assert UiMessage().read(answer.body).text == "Hello"
    plain = asyncio.ensure_future(rig.ask(post({"messages": [{"role": "user", "content": "Hi"}]}, path=PATH)))
    start = await rig.cluster.start()
    rig.cluster.end(start, "Hello")
    assert (start.route.agent, start.route.models) == (None, ("scripted",))
    assert (await plain).status == 200


@pytest.mark.requirement("run-chat:headers-fill-the-prompt")
async def test_headers_fill_the_agents_prompt(rig: Rig) -> None:
    start, _ = await exchanged(rig, headers={"name": "Ada {{age}}", "age": 36})
    assert start.prompt == "You speak to Ada {{age}}, who is 36."


@pytest.mark.requirement("run-chat:headers-fill-the-prompt")
@pytest.mark.parametrize(
    ("headers", "named"), [({}, ["name"]), ({"name": 7, "age": "old"}, ["name", "age"]), (None, ["name"])]
)
async def test_headers_that_do_not_fit_are_named(rig: Rig, headers: dict[str, Any] | None, named: list[str]) -> None:
    answer = await rig.ask(asking(conversationId="conv-1", **({} if headers is None else {"headers": headers})))
    problem = answer.json()
    assert (answer.status, problem["code"]) == (400, "bad_request")
    assert problem["instance"] == "/conversations/conv-1"
    assert all(name in problem["detail"] for name in named)


@pytest.mark.requirement("run-chat:fields")
async def test_what_a_request_says_of_itself_goes_with_its_turn(rig: Rig) -> None:
    start, answer = await exchanged(
        rig,
        headers={"name": "Ada"},
        conversationId="conv-1",
        messageId="message-1",
        executionMode="classic",
        max_tokens=9,
        userProperties={"plan": "pro"},
        properties={"url": "https://x"},
        runConfig={"depth": 2},
    )
    assert (start.conversation, start.creates, start.message, start.mode) == ("conv-1", True, "message-1", "classic")
    assert start.sampling.max_tokens == 9
    assert json.loads(start.details) == {
        "properties": {"url": "https://x"},
        "runConfig": {"depth": 2},
        "userProperties": {"plan": "pro"},
    }
    assert answer.headers["x-conversation-id"] == "conv-1"


@pytest.mark.requirement("run-chat:problem-details")
async def test_a_turn_that_fails_before_anything_was_said_is_a_problem(rig: Rig) -> None:
    answering = asyncio.ensure_future(rig.ask(asking(headers={"name": "Ada"}, conversationId="conv-1")))
    rig.cluster.fail(await rig.cluster.start(), ErrorCode.UPSTREAM_FAILED, "It failed")
    answer = await answering
    assert (answer.status, answer.headers["content-type"]) == (502, "application/problem+json")
    problem = answer.json()
    assert (problem["code"], problem["title"]) == ("bad_gateway", "Bad Gateway")
    assert problem["instance"] == "/conversations/conv-1"
