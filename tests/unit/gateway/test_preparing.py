"""What a request needs before it is a turn: its agent's prompt filled in, its role, its passages."""

from typing import Any

import pytest

from kitemesh_contracts.commands import Route
from kitemesh_contracts.content import Message, Sampling, SystemMessage, TextPart, UserMessage
from kitemesh_gateway.dialects.base import Mistakes, TurnRequest
from kitemesh_gateway.passages import Passages
from kitemesh_gateway.preparing import ROLE_HEADER, Preparing
from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.knowledge_chunks import split
from kitemesh_runtime.stores_memory import memory_stores
from unit.gateway.holding import handle
from unit.gateway.rig import ManualClock

ROLE, QUIET, OTHER = (f"{n}1e5a6f0-0000-4000-8000-000000000000" for n in (1, 2, 3))
CATALOG = Catalog.model_validate(
    {
        "providers": {"p": {"kind": "scripted"}},
        "models": {"m": {"provider": "p"}},
        "agents": {
            "plain": {"model": "m", "prompt": "Say {{what}}."},
            "guide": {
                "model": "m",
                "prompt": "You guide {{name}}, who is {{age}}.",
                "headers_schema": {
                    "type": "object",
                    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
                    "required": ["name"],
                },
            },
        },
        "roles": {
            ROLE: {"prompt": "You are a judge.", "retrieval": True},
            QUIET: {"prompt": "Hush.", "retrieval": False},
        },
    }
)
SAID: tuple[Message, ...] = (
    SystemMessage(text="Be brief."),
    UserMessage(parts=(TextPart(text="What do kites need?"),)),
)


def asked(**fields: Any) -> TurnRequest:
    return TurnRequest(model="m", messages=SAID, sampling=Sampling(), stream=False, **fields)


def route(agent: str | None = None) -> Route:
    return Route(requested="m", models=("m",), pool="default", agent=agent)


async def preparing() -> Preparing:
    stores = memory_stores(ManualClock())
    text = "Kites need wind."
    await stores.knowledge.put("acme", "default", "kites.md", split(text, markdown=True), characters=len(text))
    return Preparing(handle(CATALOG), Passages(stores.knowledge, handle(CATALOG)))


@pytest.mark.requirement("run-chat:headers-fill-the-prompt")
async def test_an_agents_prompt_is_filled_with_values_which_are_never_templates_themselves() -> None:
    values = {"name": "{{age}}", "age": 7}
    prepared = await (await preparing()).prepare("acme", asked(values=values), route("guide"))
    assert prepared.request.prompt == "You guide {{age}}, who is 7."
    missing = await (await preparing()).prepare("acme", asked(values={"name": "Ada"}), route("guide"))
    assert missing.request.prompt == "You guide Ada, who is ."
    untouched = await (await preparing()).prepare("acme", asked(values={"what": "it"}), route("plain"))
    assert untouched.request.prompt is None
    replaced = await (await preparing()).prepare("acme", asked(prompt="Mine."), route("guide"))
    assert replaced.request.prompt == "Mine."


@pytest.mark.requirement("run-chat:headers-fill-the-prompt")
async def test_values_that_do_not_fit_are_named_each_with_its_field() -> None:
    with pytest.raises(Mistakes) as refused:
        await (await preparing()).prepare("acme", asked(values={"age": "old"}), route("guide"))
    assert sorted(mistake.field for mistake in refused.value.mistakes) == ["headers", "headers.age"]
    assert "name" in refused.value.message


async def test_a_known_role_speaks_for_the_client_and_says_whether_passages_are_wanted() -> None:
    prepared = await (await preparing()).prepare("acme", asked(role=ROLE.upper()), route())
    prompt, passages, question = prepared.request.messages
    assert (prompt, question) == (SystemMessage(text="You are a judge."), SAID[1])
    assert isinstance(passages, SystemMessage)
    assert "Kites need wind." in passages.text
    assert prepared.headers == {}
    quiet = await (await preparing()).prepare("acme", asked(role=QUIET, retrieval=True), route())
    assert quiet.request.messages == (SystemMessage(text="Hush."), SAID[1])


async def test_an_unknown_role_leaves_the_clients_words_without_passages_and_says_so() -> None:
    prepared = await (await preparing()).prepare("acme", asked(role=OTHER, retrieval=True), route())
    assert prepared.request.messages == SAID
    assert prepared.headers == {ROLE_HEADER: "unknown"}


async def test_without_a_hit_of_the_tenants_own_nothing_is_added() -> None:
    prepared = await (await preparing()).prepare("other", asked(retrieval=True), route())
    assert prepared.request.messages == SAID
    found = await (await preparing()).prepare("acme", asked(retrieval=True), route())
    assert [type(message) for message in found.request.messages] == [SystemMessage, SystemMessage, UserMessage]
