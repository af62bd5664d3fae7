"""What the tool-executor is told."""

from kitemesh_runtime.settings import load
from kitemesh_tool_executor.settings import ExecutorSettings


def test_variables_for_the_operators_tools_are_no_settings_and_no_mistake() -> None:
    assert load(ExecutorSettings, {"KITEMESH_TOOL_REGION": "eu", "KITEMESH_SLOTS": "3"}).slots == 3
