"""What the page about clients says is what is run."""

from importlib.metadata import version
from pathlib import Path

import pytest

from clients.node_clients import NodeClient

PYTHON = ("langchain-openai", "litellm", "openai", "pydantic-ai-slim")


@pytest.mark.requirement("clients:documented")
def test_the_documented_versions_are_the_ones_that_run(repository: Path) -> None:
    page = (repository / "docs" / "clients.md").read_text()
    rows = [tuple(map(str.strip, line.split("|")[1:3])) for line in page.splitlines() if line.startswith("| ")]
    named = {(name.partition(",")[0].partition(" ")[0], each) for name, text in rows for each in text.split(", ")}
    packages = {(name, version(name)) for name in PYTHON}
    packages |= {
        (name, NodeClient("", folder, name).version) for folder in ("node", "node22") for name in ("openai", "ai")
    }
    assert packages <= named
