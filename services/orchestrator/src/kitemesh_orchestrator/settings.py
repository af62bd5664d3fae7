"""What the orchestrator is told."""

from typing import Annotated

from pydantic import Field

from kitemesh_contracts.topology import OUT_MAX_BYTES
from kitemesh_runtime.settings import OutMaxBytes, Settings


class OrchestratorSettings(Settings):
    """Settings of the orchestrator."""

    slots: Annotated[int, Field(ge=1, le=10_000, description="Messages handled at once, for each queue.")] = 256
    sweep_s: Annotated[float, Field(gt=0, le=3600, description="Seconds between sweeps of the store.")] = 5.0
    max_waiting: Annotated[int, Field(ge=0, le=100, description="Turns that may wait in one conversation.")] = 16
    out_max_bytes: OutMaxBytes = OUT_MAX_BYTES
