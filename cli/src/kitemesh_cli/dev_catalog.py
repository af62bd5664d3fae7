"""The catalog of a one-machine cluster: the packaged one and, with `OPENAI_*` set, real models.

A catalog that the person names in `KITEMESH_CATALOG` is used as it is. The secret is referred to, never written.
"""

import asyncio
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import msgspec
import yaml
from pydantic import TypeAdapter, ValidationError

from kitemesh_runtime import catalog_file
from kitemesh_runtime.catalog import Catalog, ModelId, parse

PROVIDER: Final = "openai"
DEFAULT_BASE_URL: Final = "https://api.openai.com/v1"
FALLBACK_MODEL: Final = "gpt-4o-mini"
LIST_TIMEOUT_S: Final = 5.0

_HEADER: Final = """\
# Written by `kitemesh dev` at each start. To change what is offered, copy it, edit the copy
# and name that in KITEMESH_CATALOG; docs/catalog.md explains the file.
"""

_MODEL_ID: Final[TypeAdapter[str]] = TypeAdapter(ModelId)


class DevCatalog(NamedTuple):
    """The catalog in use.

    Attributes:
        note: Where it comes from, in a few words.

    """

    path: Path
    catalog: Catalog
    note: str


class _Listed(msgspec.Struct):
    id: str


class _Listing(msgspec.Struct):
    data: list[_Listed]


class _Found(NamedTuple):
    models: tuple[str, ...]
    note: str


def packaged_text() -> str:
    """Return the catalog that comes with the package."""
    return files("kitemesh_cli").joinpath("catalog.yaml").read_text(encoding="utf-8")


async def prepare(own: Path | None, generated: Path, environ: Mapping[str, str]) -> DevCatalog:
    """Decide which catalog serves, writing `generated` unless the person has their `own`.

    Raises:
        CatalogError: The person's own cannot be used, or `OPENAI_BASE_URL` is no URL.

    """
    if own is not None:
        return DevCatalog(own, catalog_file.read(own), f"yours, {own}")
    text, note = packaged_text(), "the packaged one, scripted answers only"
    if environ.get("OPENAI_API_KEY") or environ.get("OPENAI_BASE_URL"):
        base_url = (environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL).rstrip("/")
        found = await _find_models(base_url, environ)
        text, note = extend(text, base_url, found.models, has_key=bool(environ.get("OPENAI_API_KEY"))), found.note
    catalog = parse(text)
    await asyncio.to_thread(generated.write_text, _HEADER + text, encoding="utf-8")
    return DevCatalog(generated, catalog, note)


def extend(text: str, base_url: str, models: Iterable[str], *, has_key: bool) -> str:
    """Add the provider and its models to a catalog text."""
    content: dict[str, Any] = yaml.safe_load(text)
    provider: dict[str, Any] = {"kind": "openai", "base_url": base_url}
    if has_key:
        provider["api_key"] = {"env": "OPENAI_API_KEY"}
    content["providers"][PROVIDER] = provider
    content["models"].update({model: {"provider": PROVIDER, "owned_by": PROVIDER} for model in models})
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def acceptable(ids: Iterable[str]) -> tuple[str, ...]:
    """Return the ids that a catalog may hold beside the packaged ones, sorted."""
    taken = parse(packaged_text()).models
    return tuple(sorted({each for each in ids if _is_model_id(each)} - taken.keys()))


async def _find_models(base_url: str, environ: Mapping[str, str]) -> _Found:
    named = environ.get("OPENAI_MODEL") or FALLBACK_MODEL
    try:
        listed = await _list_models(base_url, environ.get("OPENAI_API_KEY"))
    except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
        problem = str(exc) or f"no answer within {LIST_TIMEOUT_S:.0f} s"
        return _Found(acceptable([named]), f"{named} of {base_url}, which did not list its models: {problem}")
    models = acceptable([*listed, *filter(None, [environ.get("OPENAI_MODEL")])])
    return _Found(models, f"scripted, and {len(models)} models of {base_url}")


async def _list_models(base_url: str, key: str | None) -> list[str]:
    timeout = aiohttp.ClientTimeout(total=LIST_TIMEOUT_S)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with (
        aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
        session.get(f"{base_url}/models") as answer,
    ):
        if answer.status != 200:  # noqa: PLR2004  HTTP's own number
            raise ValueError(f"status {answer.status}")
        try:
            return [each.id for each in msgspec.json.decode(await answer.read(), type=_Listing).data]
        except msgspec.DecodeError as exc:
            raise ValueError("not a list of models") from exc


def _is_model_id(text: str) -> bool:
    try:
        _MODEL_ID.validate_python(text)
    except ValidationError:
        return False
    return not text.startswith(("group:", "agent:"))
