"""What bootstrap would do, without a server."""

from dataclasses import dataclass, field

import pytest

from kitemesh_contracts.topology import FEED, OUT, ConsumerSpec, StreamSpec, topology
from kitemesh_runtime.topology_plan import Config, Found, consumer_config, overlap, plan, stream_config

CONSUMER = ConsumerSpec("c", "S", "s.*", ack_wait_s=5, max_deliver=5)
SPEC = StreamSpec("S", ("s.*",), "workqueue", "file", 3600, consumers=(CONSUMER,))


@dataclass
class Server:
    """What the server has: the topology's own configuration with some fields changed."""

    stream: Config = field(default_factory=dict)
    consumer: Config = field(default_factory=dict)
    foreign: dict[str, Found] = field(default_factory=dict)

    def found(self) -> dict[str, Found]:
        stream = {**stream_config(SPEC, 1), "max_consumers": -1, **self.stream}
        consumer = {**consumer_config(CONSUMER), "max_waiting": 512, **self.consumer}
        return {"S": Found(stream, {"c": consumer}), **self.foreign}


def test_an_empty_server_gets_every_stream_before_its_consumers() -> None:
    made = plan(topology(), {}, replicas=1)
    says = [sentence for step in made.steps for sentence in step.says]
    assert says[:2] == ["created stream KM_TURN", "created consumer orchestrator-turn of stream KM_TURN"]
    assert len(says) == len(topology()) + sum(len(spec.consumers) for spec in topology())
    assert (made.drift, made.notes) == ([], [])


def test_a_server_that_agrees_needs_nothing() -> None:
    assert plan([SPEC], Server().found(), replicas=1) == ([], [], [])


@pytest.mark.parametrize("name", [OUT, FEED])
def test_what_is_read_again_is_kept_in_memory_within_bounds_and_read_without_consumers(name: str) -> None:
    [spec] = [spec for spec in topology() if spec.name == name]
    config = stream_config(spec, 1)
    assert (config["storage"], config["retention"], config["discard"]) == ("memory", "limits", "old")
    assert config["allow_direct"]
    assert 0 < config["max_bytes"] <= 256 << 20
    assert config["max_age"] >= 900 * 10**9
    assert spec.consumers == ()


def test_the_order_of_subjects_is_no_difference() -> None:
    spec = SPEC._replace(subjects=("s.*", "t.*"))
    found = {"S": Found({**stream_config(spec, 1), "subjects": ["t.*", "s.*"]}, {"c": consumer_config(CONSUMER)})}
    assert plan([spec], found, replicas=1).steps == []


@pytest.mark.parametrize(
    ("server", "sentence"),
    [
        (Server(stream={"max_msgs": 5}), "changed max_msgs of stream S from 5 to -1"),
        (Server(stream={"max_age": 1}), "changed max_age of stream S from 1 to 3600000000000"),
        (Server(stream={"num_replicas": 3}), "changed num_replicas of stream S from 3 to 1"),
        (Server(stream={"max_bytes": 5}), "changed max_bytes of stream S from 5 to -1"),
        (Server(stream={"allow_direct": True}), "changed allow_direct of stream S from True to False"),
        (Server(stream={"discard": "new"}), "changed discard of stream S from new to old"),
        (Server(stream={"subjects": []}), "changed subjects of stream S from [] to ['s.*']"),
        (Server(consumer={"ack_wait": 1}), "changed ack_wait of consumer c of stream S from 1 to 5000000000"),
        (Server(consumer={"max_deliver": -1}), "changed max_deliver of consumer c of stream S from -1 to 5"),
        (Server(consumer={"max_ack_pending": 9}), "changed max_ack_pending of consumer c of stream S from 9 to 10000"),
    ],
)
def test_what_can_be_updated_is_and_other_fields_are_kept(server: Server, sentence: str) -> None:
    made = plan([SPEC], server.found(), replicas=1)
    assert made.drift == []
    [step] = made.steps
    assert step.says == (sentence,)
    config = step.body.get("config", step.body)
    assert config.get("max_consumers") == -1 or config.get("max_waiting") == 512


@pytest.mark.parametrize(
    ("server", "sentence"),
    [
        (Server(stream={"storage": "memory"}), "stream S: storage is memory, the topology says file"),
        (Server(stream={"retention": "limits"}), "stream S: retention is limits, the topology says workqueue"),
        (Server(stream={"subjects": ["s.*", "u.*"]}), "stream S: subject u.* is not in the topology"),
        (
            Server(foreign={"F": Found({"subjects": ["s.>"]}, {})}),
            "stream S: subject s.* overlaps s.> of stream F",
        ),
        (
            Server(consumer={"deliver_policy": "new"}),
            "consumer c of stream S: deliver_policy is new, the topology says all",
        ),
        (
            Server(consumer={"ack_policy": "none"}),
            "consumer c of stream S: ack_policy is none, the topology says explicit",
        ),
        (
            Server(consumer={"filter_subject": "s.a"}),
            "consumer c of stream S: filter_subject is s.a, the topology says s.*",
        ),
        (Server(consumer={"deliver_subject": "d"}), "consumer c of stream S: it is a push consumer"),
    ],
)
def test_what_no_update_heals_is_drift(server: Server, sentence: str) -> None:
    assert plan([SPEC], server.found(), replicas=1).drift == [sentence]


def test_a_consumer_that_the_topology_does_not_name_is_mentioned_and_left_alone() -> None:
    found = Server().found()
    found["S"].consumers["old-pool"] = {}
    made = plan([SPEC], found, replicas=1)
    assert made.steps == []
    assert made.notes == ["left consumer old-pool of stream S alone: the topology does not name it"]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.c", True),
        ("a.*", "a.c.d", False),
        ("a.>", "a.c.d", True),
        ("a.>", "a", False),
        ("*.b", "a.*", True),
        ("*.b", "a.c", False),
        (">", "a", True),
    ],
)
def test_overlap_of_patterns(one: str, other: str, expected: bool) -> None:
    assert overlap(one, other) is expected
    assert overlap(other, one) is expected
