"""`python -m kitemesh_tool_executor`."""

from kitemesh_runtime.lifecycle import run
from kitemesh_tool_executor.app import serve
from kitemesh_tool_executor.settings import ExecutorSettings


def main() -> None:
    """Be the tool-executor."""
    run("tool-executor", ExecutorSettings, serve)


if __name__ == "__main__":
    main()
