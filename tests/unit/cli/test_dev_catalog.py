from pathlib import Path

import pytest

from kitemesh_cli.dev_catalog import (
    acceptable,
    check_environment,
    choose,
    extend,
    packaged_text,
    prepare,
    seems_to_chat,
)
from kitemesh_runtime.catalog import CatalogError, OpenAIProvider, parse
from kitemesh_runtime.policies import first_rule

SEED_GROUP = "123e4567-e89b-12d3-a456-426614174000"


def test_the_packaged_catalog_knows_the_seeds_group_an_agent_and_a_scripted_model() -> None:
    catalog = parse(packaged_text())
    assert catalog.resolve(f"group:{SEED_GROUP}").models == ("scripted",)
    assert catalog.resolve("agent:assistant").agent == "assistant"


def test_real_models_stand_beside_the_packaged_ones_and_the_secret_is_only_named() -> None:
    text = extend(packaged_text(), "https://llm.example/v1", ["gpt-4o", "org/model:free"], has_key=True)
    catalog = parse(text)
    assert set(catalog.models) == {"scripted", "gpt-4o", "org/model:free"}
    provider = catalog.providers["openai"]
    assert isinstance(provider, OpenAIProvider)
    assert provider.base_url == "https://llm.example/v1"
    assert provider.api_key is not None
    assert provider.api_key.env == "OPENAI_API_KEY"
    assert catalog.resolve(f"group:{SEED_GROUP}").models == ("scripted",)


def test_the_chosen_model_answers_for_the_group_the_agent_and_by_default() -> None:
    text = extend(packaged_text(), "https://llm.example/v1", ["gpt-4o", "other"], has_key=True, chosen="gpt-4o")
    catalog = parse(text)
    assert catalog.resolve(f"group:{SEED_GROUP}").models == ("gpt-4o",)
    assert catalog.resolve("agent:assistant").models == ("gpt-4o",)
    assert catalog.default_model == "gpt-4o"


def test_the_packaged_tools_and_their_rule_stay_where_real_models_answer() -> None:
    packaged = parse(packaged_text())
    catalog = parse(extend(packaged_text(), "https://llm.example/v1", ["gpt-4o"], has_key=True, chosen="gpt-4o"))
    assert (catalog.tools, catalog.policies) == (packaged.tools, packaged.policies)
    assert catalog.agents["assistant"].tools == ("get_weather", "delete_record")
    held = first_rule(catalog.policies, "delete_record", "assistant", "dev", {"id": "42"})
    assert held is not None
    assert (held.then, held.scope) == ("hold", "approve")
    assert first_rule(catalog.policies, "get_weather", "assistant", "dev", {"city": "Oslo"}) is None


@pytest.mark.parametrize(
    ("listed", "chosen"),
    [
        (["text-embedding-3-small", "whisper-1", "zeta", "alpha"], "zeta"),
        (["zeta", "gpt-4o-mini"], "gpt-4o-mini"),
        (["a b", "nomic-embed-text:latest", "llama3.2:3b"], "llama3.2:3b"),
        (["tts-1", "dall-e-3"], None),
        ([], None),
    ],
)
def test_the_model_to_begin_with_is_one_that_chats(listed: list[str], chosen: str | None) -> None:
    assert choose(listed) == chosen


@pytest.mark.parametrize(
    "model",
    [
        "text-embedding-3-large",
        "nomic-embed-text:latest",
        "mxbai-embed-large",
        "BAAI/bge-m3",
        "whisper-1",
        "gpt-4o-transcribe",
        "gpt-4o-mini-tts",
        "dall-e-3",
        "gpt-image-1",
        "omni-moderation-latest",
        "gpt-4o-realtime-preview",
        "babbage-002",
        "davinci-002",
        "gpt-3.5-turbo-instruct",
        "jina-reranker-v2",
    ],
)
def test_what_does_not_chat_is_known_by_its_name(model: str) -> None:
    assert not seems_to_chat(model)


@pytest.mark.parametrize(
    "model",
    ["gpt-4o-mini", "o3", "chatgpt-4o-latest", "meta-llama/Llama-3.3-70B-Instruct", "qwen3:8b", "ok", "Adagio-7b"],
)
def test_what_chats_is_left_in(model: str) -> None:
    assert seems_to_chat(model)


@pytest.mark.parametrize(
    ("environ", "variables"),
    [
        ({}, []),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1", "OPENAI_MODEL": "org/m:7b"}, []),
        ({"OPENAI_BASE_URL": "127.0.0.1:1"}, ["OPENAI_BASE_URL"]),
        ({"OPENAI_BASE_URL": "ftp://a", "OPENAI_MODEL": "a b"}, ["OPENAI_BASE_URL", "OPENAI_MODEL"]),
    ],
)
def test_wrong_variables_are_told_before_anything_starts(environ: dict[str, str], variables: list[str]) -> None:
    assert [problem.partition(":")[0] for problem in check_environment(environ)] == variables


def test_an_endpoint_without_a_key_gets_none() -> None:
    provider = parse(extend(packaged_text(), "http://localhost:11434/v1", ["llama"], has_key=False)).providers["openai"]
    assert isinstance(provider, OpenAIProvider)
    assert provider.api_key is None


def test_ids_that_a_catalog_cannot_hold_are_left_out() -> None:
    found = acceptable(
        ["gpt-4o", "gpt-4o", "", "a b", "x" * 129, "group:a", "agent:a", "scripted", "ft:gpt:o::id", "é"]
    )
    assert found == ("ft:gpt:o::id", "gpt-4o")


async def test_a_catalog_of_ones_own_is_used_as_it_is(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(packaged_text())
    found = await prepare(own, tmp_path / "generated.yaml", {"OPENAI_API_KEY": "sk-x"})
    assert found.path == own
    assert not (tmp_path / "generated.yaml").exists()


async def test_mistakes_in_a_catalog_of_ones_own_are_told(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("providers: {}\nmodels: {m: {provider: nobody}}\n")
    with pytest.raises(CatalogError, match="nobody"):
        await prepare(own, tmp_path / "generated.yaml", {})


async def test_without_openai_only_scripted_answers(tmp_path: Path) -> None:
    found = await prepare(None, tmp_path / "generated.yaml", {})
    assert list(found.catalog.models) == ["scripted"]
    assert parse(found.path.read_text()) == found.catalog
