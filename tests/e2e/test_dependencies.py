"""What a cluster stands on fails under load: turns go on, or are refused with words, and all is well again soon.

`make chaos` plays the same faults at length; here each happens once, for durable and classic turns together.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from chaos.disk_faults import running_small_servers
from chaos.infra_found import NOMINAL_S, Bounds, Found
from chaos.infra_run import run
from chaos.infra_scenarios import MODES
from chaos.infra_table import render
from chaos.mongo_faults import three_member_faults
from chaos.mongo_nodes import mongo_url, running_mongo_set
from chaos.nats_faults import one_node_faults, three_node_faults
from chaos.nats_nodes import nats_url, running_nats_cluster
from chaos.proxy_faults import network_faults
from chaos.stage import Inject, Stage, cluster_on
from chaos.tcp_proxy import running_proxies

SEED: Final = 7
ELECTION_MS: Final = 2_000
FULL_S: Final = (3.0, 3.5)


def chosen(faults: Mapping[str, Inject], *names: str) -> dict[str, Inject]:
    return {name: faults[name] for name in names}


def found_on(stage: Stage, name: str, bounds: Bounds) -> Found:
    """Play each fault of a stage once."""
    return asyncio.run(
        run(stage, scenario=name, seed=SEED, faults=len(stage.faults), bounds=bounds, modes=MODES, say=print)
    )


def assert_kept(found: Found, kinds: Sequence[str]) -> None:
    told = render(found)
    assert found.violations == [], told
    assert [fault.kind for fault in found.faults] == list(kinds)
    for mode in MODES:
        turns = [turn for turn in found.turns if turn.mode == mode]
        assert len([turn for turn in turns if turn.result == "answered"]) > len(turns) / 2, told
    assert any(turn.resumes for turn in found.turns), told


@pytest.mark.requirement("promise:P7", "promise:P9", "promise:P11", "fault:network")
def test_one_nats_and_one_mongod_fail_in_every_way_and_no_turn_is_lost(tmp_path: Path) -> None:
    kinds = ("NATS killed", "NATS reset", "NATS wiped", "disk full under NATS", "disk full under MongoDB")
    with running_proxies(SEED) as proxies, running_small_servers(tmp_path) as servers:
        door = proxies.to(servers.nats.port)
        with cluster_on(
            tmp_path,
            lambda cluster: chosen(
                one_node_faults(servers.nats, cluster) | network_faults({"NATS": door}) | servers.faults(FULL_S), *kinds
            ),
            KITEMESH_NATS_URL=nats_url(door.port),
            KITEMESH_MONGO_URL=mongo_url(servers.mongo.port),
        ) as stage:
            assert_kept(found_on(stage, "single", Bounds(first_s=5.0, refusal_s=3.0)), kinds)


@pytest.mark.requirement("promise:P8", "promise:P10")
def test_the_leader_of_three_nats_and_the_primary_of_three_mongods_die_and_no_turn_is_lost(tmp_path: Path) -> None:
    kinds = ("NATS leader killed", "primary killed")
    with (
        running_proxies(SEED) as proxies,
        running_nats_cluster(tmp_path, proxies) as nats,
        running_mongo_set(tmp_path, election_ms=ELECTION_MS) as mongo,
        cluster_on(
            tmp_path,
            lambda _: chosen(three_node_faults(nats) | three_member_faults(mongo), *kinds),
            KITEMESH_NATS_URL=nats.url,
            KITEMESH_REPLICAS="3",
            KITEMESH_MONGO_URL=mongo.url,
        ) as stage,
    ):
        assert_kept(found_on(stage, "clustered", Bounds(first_s=15.0 + NOMINAL_S, full_s=15.0 + NOMINAL_S)), kinds)
