"""Every metric on the list is counted somewhere."""

from pathlib import Path

import pytest
from prometheus_client import Counter, Gauge, Histogram

from kitemesh_runtime import metrics

NAMES = [name for name, value in vars(metrics).items() if isinstance(value, Counter | Gauge | Histogram)]


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_is_counted_somewhere(name: str, repository: Path) -> None:
    sources = [path for folder in ("libs", "services") for path in (repository / folder).rglob("src/**/*.py")]
    assert any(f"{name}." in path.read_text() for path in sources if path.name != "metrics.py")
