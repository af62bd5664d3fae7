from pathlib import Path

import pytest

from kitemesh_cli.dev_catalog import acceptable, extend, packaged_text, prepare
from kitemesh_runtime.catalog import CatalogError, OpenAIProvider, parse

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
