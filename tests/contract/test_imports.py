"""Which file may import which driver; `make check` says the rest of who may import whom."""

import ast
import functools
from pathlib import Path

import pytest

HOMES = {
    "nats": lambda path: path.stem.endswith("_nats"),
    "motor": lambda path: path.stem.endswith("_mongo"),
    "pymongo": lambda path: path.stem.endswith("_mongo"),
    "bson": lambda path: path.stem.endswith("_mongo"),
    "gridfs": lambda path: path.stem.endswith("_mongo"),
    "grafana_foundation_sdk": lambda path: path.name == "grafana.py",
    "prometheus_client": lambda path: path.name in {"metrics.py", "instruments.py", "health.py"},
}


@functools.cache
def imported(path: Path) -> frozenset[str]:
    """Return the top-level packages that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return frozenset(found)


@pytest.mark.parametrize("driver", HOMES)
def test_a_driver_is_imported_only_where_it_is_at_home(driver: str, repository: Path) -> None:
    folders = ("libs", "services", "cli", "observability")
    sources = [path for folder in folders for path in (repository / folder).rglob("src/**/*.py")]
    users = [path for path in sources if driver in imported(path)]
    assert users
    assert [path for path in users if not HOMES[driver](path)] == []
