"""Whether a user may publish somewhere can be tried without anything being stored."""

from integration.access.guarded import Guarded
from kitemesh_contracts.permissions import OPERATOR, inbox_prefix
from kitemesh_contracts.topology import CONTROL
from kitemesh_runtime.bus_nats import open_bus


async def test_a_right_is_tried_without_effect(guarded_nats: Guarded) -> None:
    async with (
        open_bus(guarded_nats.bus(OPERATOR), name="operator") as operator,
        open_bus(guarded_nats.bus("gateway"), name="gateway", inbox_prefix=inbox_prefix("gateway")) as gateway,
    ):
        assert await gateway.may_store("km.v1.control.decide.doctor", timeout_s=2)
        assert not await gateway.may_store("km.v1.event.step.generated.doctor", timeout_s=2)
        assert await operator.may_store("km.v1.event.step.generated.doctor", timeout_s=2)
        assert await gateway.may_ask(f"$JS.API.STREAM.INFO.{CONTROL}", timeout_s=2)
        assert not await gateway.may_ask("$JS.API.STREAM.NAMES", timeout_s=2)
        assert not await operator.holds(CONTROL, "km.v1.control.decide.doctor")
