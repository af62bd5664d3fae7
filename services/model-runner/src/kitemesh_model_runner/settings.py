"""What the model-runner is told."""

from typing import Annotated

from pydantic import Field

from kitemesh_runtime.settings import Settings


class RunnerSettings(Settings):
    """Settings of the model-runner."""

    pool: str = Field(
        "default", description="Model pool that this process works for.", pattern=r"^[A-Za-z0-9_-]{1,64}$"
    )
    slots: Annotated[int, Field(ge=1, le=10_000, description="Model calls in flight at once.")] = 256
