"""What documents say about the code, where a machine can tell: names, examples, links, commands."""

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from kitemesh_contracts import beats, commands, deltas, events
from kitemesh_contracts.topology import topology
from kitemesh_runtime.catalog import parse
from kitemesh_runtime.dead_nats import DeadLetter

FOLDER = Path(__file__).resolve().parents[2]
PAGES = sorted(page.relative_to(FOLDER) for page in [*FOLDER.glob("*.md"), *FOLDER.glob("docs/**/*.md")])
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", (FOLDER / "docs" / "catalog.md").read_text(), re.MULTILINE | re.DOTALL)
MESSAGES: tuple[type[msgspec.Struct], ...] = (
    *get_args(commands.Command),
    commands.Parcel,
    *get_args(events.Event),
    *get_args(deltas.Relayed),
    beats.Beat,
    DeadLetter,
)


def test_every_stream_and_consumer_is_described() -> None:
    text = (FOLDER / "docs" / "wire.md").read_text()
    for stream in topology():
        assert f"| `{stream.name}` |" in text
        named = [consumer.name for consumer in stream.consumers if not consumer.name.startswith("default-")]
        assert all(f"`{name}`" in text for name in named)


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_is_described(message: type[msgspec.Struct]) -> None:
    assert f"`{message.__struct_config__.tag}`" in (FOLDER / "docs" / "wire.md").read_text()


def test_the_catalogs_in_the_documentation_are_valid() -> None:
    assert len(EXAMPLES) == 3
    for example in EXAMPLES:
        parse(example)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (FOLDER / page).read_text())
    local = [link for link in links if "://" not in link]
    missing = [link for link in local if not (FOLDER / page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_verbs_of_make_that_are_named_exist(page: Path) -> None:
    verbs = set(re.findall(r"^([a-z0-9-]+):", (FOLDER / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z0-9-]+)", (FOLDER / page).read_text(), re.MULTILINE))
    assert named <= verbs


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_variables_that_are_named_exist(page: Path) -> None:
    known = set(re.findall(r"`(KITEMESH_[A-Z_]+)", (FOLDER / "docs" / "settings.md").read_text()))
    named = set(re.findall(r"KITEMESH_[A-Z][A-Z_]*[A-Z]", (FOLDER / page).read_text()))
    assert named <= known
