"""The catalog of a one-machine cluster: the packaged one and, with `OPENAI_*` set, real models.

A catalog that the person names in `KITEMESH_CATALOG` is used as it is. The secret is referred to, never written.
"""

import asyncio
import os
import re
from collections.abc import Iterable, Mapping, Sequence
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

# Endpoints list everything they have; these words in an id mark what does not answer chat requests.
_NO_CHAT: Final = re.compile(
    r"(?:^|[-_./:])(?:\w*embed\w*|bge|e5|gte|rerank\w*|whisper|tts|stt|transcribe|dall|image|imagen|sora|audio|realtime"
    r"|\w*moderation|guard|babbage|davinci|curie|ada)(?=$|[-_./:0-9])|^gpt-3\.5-turbo-instruct",
    re.IGNORECASE,
)


class DevCatalog(NamedTuple):
    """The catalog in use.

    Attributes:
        note: Where it comes from, in a few words.
        real_model: What answers instead of the scripted model; `None` when nothing does.

    """

    path: Path
    catalog: Catalog
    note: str
    real_model: str | None = None


class _Listed(msgspec.Struct):
    id: str


class _Listing(msgspec.Struct):
    data: list[_Listed]


class _Found(NamedTuple):
    models: tuple[str, ...]
    note: str
    chosen: str | None


def packaged_text() -> str:
    """Return the catalog that comes with the package."""
    return files("kitemesh_cli").joinpath("catalog.yaml").read_text(encoding="utf-8")


def check_environment(environ: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the `OPENAI_*` variables, one sentence each."""
    problems = []
    base_url, named = environ.get("OPENAI_BASE_URL"), environ.get("OPENAI_MODEL")
    if base_url and re.match(r"https?://\S+\Z", base_url) is None:
        problems.append("OPENAI_BASE_URL: must begin with http:// or https://")
    if named and not _is_model_id(named):
        problems.append("OPENAI_MODEL: must be a model's id: 1 to 128 of A-Z a-z 0-9 . _ : / @ + -")
    return problems


async def prepare(own: Path | None, generated: Path, environ: Mapping[str, str]) -> DevCatalog:
    """Decide which catalog serves, writing `generated` unless the person has their `own`.

    Raises:
        CatalogError: The person's own cannot be used.

    """
    if own is not None:
        return DevCatalog(own, catalog_file.read(own), f"yours, {own}")
    text, note, chosen = packaged_text(), "the packaged one, scripted answers only", None
    if environ.get("OPENAI_API_KEY") or environ.get("OPENAI_BASE_URL"):
        base_url = (environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL).rstrip("/")
        found = await _find_models(base_url, environ)
        has_key = bool(environ.get("OPENAI_API_KEY"))
        text = extend(text, base_url, found.models, has_key=has_key, chosen=found.chosen)
        note, chosen = found.note, found.chosen
    catalog = parse(text)
    await asyncio.to_thread(generated.write_text, _HEADER + text, encoding="utf-8")
    return DevCatalog(generated, catalog, note, chosen)


def extend(text: str, base_url: str, models: Iterable[str], *, has_key: bool, chosen: str | None = None) -> str:
    """Add the provider and its models to a catalog text; the chosen one answers where a scripted one did."""
    content: dict[str, Any] = yaml.safe_load(text)
    provider: dict[str, Any] = {"kind": "openai", "base_url": base_url}
    if has_key:
        provider["api_key"] = {"env": "OPENAI_API_KEY"}
    content["providers"][PROVIDER] = provider
    content["models"].update({model: {"provider": PROVIDER, "owned_by": PROVIDER} for model in models})
    if chosen is not None:
        content["default_model"] = chosen
        for agent in content["agents"].values():
            agent["model"] = chosen
        for group in content["groups"].values():
            group["models"] = [chosen]
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def choose(ids: Sequence[str]) -> str | None:
    """Return the id to begin with, `None` when none seems to chat: the usual small one, else the first listed."""
    chatting = [each for each in ids if _is_model_id(each) and seems_to_chat(each)]
    return FALLBACK_MODEL if FALLBACK_MODEL in chatting else next(iter(chatting), None)


def seems_to_chat(model: str) -> bool:
    """Say whether a model's name lets it pass for one that answers chat requests."""
    return _NO_CHAT.search(model) is None


def acceptable(ids: Iterable[str]) -> tuple[str, ...]:
    """Return the ids that a catalog may hold beside the packaged ones, sorted."""
    taken = parse(packaged_text()).models
    return tuple(sorted({each for each in ids if _is_model_id(each)} - taken.keys()))


async def _find_models(base_url: str, environ: Mapping[str, str]) -> _Found:
    wished = environ.get("OPENAI_MODEL")
    try:
        listed = await _list_models(base_url, environ.get("OPENAI_API_KEY"))
    except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
        assumed = wished or FALLBACK_MODEL
        note = f"{assumed} of {base_url}, which did not list its models: {_reason(exc)}"
        return _Found(acceptable([assumed]), note, assumed)
    models = acceptable([*filter(seems_to_chat, listed), *filter(None, [wished])])
    chosen = wished or choose(listed)
    if chosen is None:
        return _Found((), f"scripted only: {base_url} lists no model that seems to chat; OPENAI_MODEL names one", None)
    others = f" and {len(models) - 1} more" if len(models) > 1 else ""
    return _Found(models, f"{chosen}{others} of {base_url}, and scripted", chosen)


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        # Where the system has a number for it, asyncio's own words repeat the address.
        return f"it cannot be reached ({os.strerror(number) if number and number > 0 else error.os_error.strerror})"
    return str(error) or f"no answer within {LIST_TIMEOUT_S:.0f} s"


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
