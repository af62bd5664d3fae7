"""`python -m kitemesh_orchestrator`."""

from kitemesh_orchestrator.app import serve
from kitemesh_orchestrator.settings import OrchestratorSettings
from kitemesh_runtime.lifecycle import run


def main() -> None:
    """Be the orchestrator."""
    run("orchestrator", OrchestratorSettings, serve)


if __name__ == "__main__":
    main()
