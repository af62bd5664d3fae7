"""`python -m kitemesh_model_runner`."""

from kitemesh_model_runner.app import serve
from kitemesh_model_runner.settings import RunnerSettings
from kitemesh_runtime.lifecycle import run


def main() -> None:
    """Be the model-runner."""
    run("model-runner", RunnerSettings, serve)


if __name__ == "__main__":
    main()
