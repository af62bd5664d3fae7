"""Pools without queues are found, whatever their catalog says of them."""

import pytest

from kitemesh_contracts import topology
from kitemesh_contracts.topology import Pool
from kitemesh_runtime.bus_nats import open_bus
from kitemesh_runtime.catalog import Catalog, Pools
from kitemesh_runtime.pool_queues_nats import find_missing
from kitemesh_runtime.topology_nats import apply


def catalog(**pools: dict[str, dict[str, int]]) -> Catalog:
    return Catalog(providers={}, models={}, pools=Pools.model_validate(pools))


@pytest.mark.requirement("catalog:pools-have-queues")
async def test_pools_lack_queues_until_bootstrap_made_them(nats_url: str) -> None:
    offered = catalog(model={"gpu": {"lanes": 2}, "wide": {"lanes": 3}}, tool={"slow": {}})
    specs = topology.topology([Pool("gpu", 2), Pool("wide", 1)], [Pool("slow")])
    wanted = [spec for spec in specs if spec.name in {topology.MODEL, topology.TOOL}]
    async with open_bus(nats_url, name="test") as bus:
        before = await find_missing(bus, offered)
        await apply(bus, wanted, replicas=1)
        after = await find_missing(bus, offered)
        await apply(bus, topology.topology([Pool("wide", 3)], [Pool("slow")]), replicas=1)
        assert await find_missing(bus, offered) == []
    nothing = "it has no queues; run `kitemesh bootstrap` with this catalog"
    assert before == [f"pools.model.gpu: {nothing}", f"pools.model.wide: {nothing}", f"pools.tool.slow: {nothing}"]
    missing = ", ".join(f"wide-{priority}-{lane}" for priority in topology.PRIORITIES for lane in (1, 2))
    assert after == [
        f"pools.model.wide: queues are missing: {missing}; run `kitemesh bootstrap` with this catalog",
    ]
