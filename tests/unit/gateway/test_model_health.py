import pytest

from kitemesh_contracts.beats import Health
from kitemesh_gateway.model_health import State, state_of

HEALTH: dict[str, Health] = {"broken": "down", "weak": "degraded"}


@pytest.mark.requirement("models:health")
@pytest.mark.parametrize(
    ("models", "state"),
    [
        (["well"], "ok"),
        (["well", "fine"], "ok"),
        (["weak"], "degraded"),
        (["broken"], "down"),
        (["broken", "well"], "degraded"),
        (["broken", "weak"], "degraded"),
        (["broken", "broken"], "down"),
    ],
)
def test_a_group_is_down_when_every_model_of_it_is(models: list[str], state: State) -> None:
    assert state_of(models, HEALTH.get) == state
