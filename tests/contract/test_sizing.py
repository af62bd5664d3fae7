"""What docs/sizing.md says and no generator can see to: that no bound is left out, and that its example has room."""

import re
from itertools import dropwhile, takewhile
from pathlib import Path

import pytest

from kitemesh_cli.settings import BootstrapSettings
from kitemesh_contracts.topology import topology
from kitemesh_gateway.settings import GatewaySettings
from kitemesh_model_runner.settings import RunnerSettings
from kitemesh_orchestrator.settings import OrchestratorSettings
from kitemesh_runtime.settings import PREFIX, Settings
from kitemesh_tool_executor.settings import ExecutorSettings

MODELS: tuple[type[Settings], ...] = (
    GatewaySettings,
    OrchestratorSettings,
    RunnerSettings,
    ExecutorSettings,
    BootstrapSettings,
)
BOUNDS = re.compile(r"max|slots|budget|_per_s$|slow_client|body_timeout|burst")


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / "docs" / "sizing.md").read_text()


def section(page: str, name: str) -> list[str]:
    """Return the lines of what is generated under a name."""
    lines = dropwhile(lambda line: line != f"<!-- {name} -->", page.splitlines())
    return list(takewhile(lambda line: line != f"<!-- /{name} -->", lines))


def test_every_setting_that_bounds_something_is_among_the_limits(page: str) -> None:
    limits = "\n".join(section(page, "limits"))
    bounds = {name for model in MODELS for name in model.model_fields if BOUNDS.search(name)}
    assert {"max_streams", "slots", "turn_queue_max", "turn_budget_s"} < bounds
    assert [name for name in sorted(bounds) if f"`{PREFIX}{name.upper()}`" not in limits] == []


def test_every_stream_that_is_bounded_in_bytes_is_among_the_limits(page: str) -> None:
    limits = "\n".join(section(page, "limits"))
    bounded = [stream.name for stream in topology() if stream.max_bytes > 0]
    assert len(bounded) == 2
    assert [name for name in bounded if f"`{name}`" not in limits] == []


def test_the_example_goes_on_with_one_process_less_of_each_service(page: str) -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section(page, "example") if line[:1] == "|"]
    needs = {row[0].partition(",")[0]: (int(row[1]), row[2]) for row in rows if row[1].isdigit() and len(row) == 3}
    assert set(needs) == {"gateways", "orchestrators", "model-runners", "tool-executors"}
    for count, reckoned in needs.values():
        cores = re.match(r"([\d.]+) cores", reckoned)
        assert cores is not None
        assert float(cores[1]) / (count - 1) < 0.65
