"""What the tool-executor is told."""

from typing import Annotated

from pydantic import Field

from kitemesh_runtime.settings import Settings


class ExecutorSettings(Settings):
    """Settings of the tool-executor."""

    pool: str = Field("default", description="Tool pool that this process works for.", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    slots: Annotated[int, Field(ge=1, le=10_000, description="Jobs worked on at once.")] = 64
