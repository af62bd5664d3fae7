"""What `kitemesh status` shows of what a gateway answers."""

import io
from typing import Any

import pytest
from rich.console import Console

from kitemesh_cli.status_screen import coloured, plain
from kitemesh_cli.status_view import view_of


def replica(service: str, **more: Any) -> dict[str, Any]:
    usual = {"replica": f"{service}-1", "state": "alive", "version": "1.0", "up_s": 4000.0, "load": 3, "slots": 0}
    return {**usual, "silent_s": 1.2, "clock_skew_ms": 10, **more}


def cluster(**more: Any) -> dict[str, Any]:
    services = ("gateway", "orchestrator", "model-runner", "tool-executor")
    return {
        "source": "gateway",
        "why": "",
        "services": [{"service": each, "versions": ["1.0"], "replicas": [replica(each)]} for each in services],
        "queues": [queue()],
        "upstreams": [{"model": "m", "pool": "default", "health": "ok"}],
        "holds": {"open": 2, "oldest_s": 7300.0},
        "dead_letters": 0,
        "dependencies": {"nats": {"up": True, "since_s": 9.0, "reason": ""}},
        **more,
    }


def queue(**more: Any) -> dict[str, Any]:
    usual = {"stream": "KM_MODEL", "pool": "default", "priority": "batch", "waiting": 0, "lanes": []}
    return {**usual, "drain_rate": 1.5, "predicted_wait_s": 0.0, "workers": 1, "slots": 8, **more}


def service(name: str, *replicas: dict[str, Any], versions: tuple[str, ...] = ("1.0",)) -> list[dict[str, Any]]:
    kept = [each for each in cluster()["services"] if each["service"] != name]
    return [*kept, {"service": name, "versions": list(versions), "replicas": list(replicas)}]


def test_a_cluster_that_is_well_is_said_to_be() -> None:
    view = view_of(cluster())
    assert view.is_well
    assert list(view.words) == []
    text = plain(view)
    assert text.startswith("everything is well\n\nSERVICE ")
    for words in ("1h 6m", "2 open, the oldest for 2h 1m", "KM_MODEL  default  batch     0        1.5/s  0.0 s"):
        assert words in text


@pytest.mark.parametrize(
    ("changed", "said", "is_well"),
    [
        ({"services": service("gateway")}, "wrong: no gateway gives signs of life", False),
        ({"services": service("tool-executor")}, "", True),
        (
            {"services": service("gateway", replica("gateway"), replica("gateway", state="silent", silent_s=20.0))},
            "doubtful: gateway gateway-1 has not been heard for 20 s",
            True,
        ),
        (
            {"services": service("gateway", replica("gateway", clock_skew_ms=-2500))},
            "doubtful: the clock of gateway gateway-1 is 2.5 s behind",
            True,
        ),
        (
            {"services": service("gateway", replica("gateway"), versions=("1.0", "1.1"))},
            "doubtful: releases are mixed: 1.0, 1.1",
            True,
        ),
        (
            {"queues": [queue(waiting=3, workers=0, predicted_wait_s=None)]},
            "wrong: 3 messages wait in KM_MODEL/default/batch, and nobody takes them",
            False,
        ),
        (
            {"queues": [queue(predicted_wait_s=61.0)]},
            "wrong: what comes to KM_MODEL/default/batch now waits 61 s",
            False,
        ),
        ({"upstreams": [{"model": "m", "pool": "p", "health": "down"}]}, "wrong: the upstream of m is down", False),
        ({"dead_letters": 1}, "doubtful: 1 dead letter: `kitemesh dead list` shows them", True),
        (
            {"dependencies": {"mongodb": {"up": False, "since_s": 65.0, "reason": "AutoReconnect"}}},
            "wrong: mongodb is down for 1m: AutoReconnect",
            False,
        ),
    ],
)
def test_what_is_wrong_is_said(changed: dict[str, Any], said: str, is_well: bool) -> None:
    view = view_of(cluster(**changed))
    assert plain(view).partition("\n")[0] == (said or "everything is well")
    assert view.is_well is is_well


def test_what_nobody_knows_is_not_said_to_be_well() -> None:
    heard = {key: value for key, value in cluster().items() if key in {"services", "queues"}}
    view = view_of({**heard, "source": "bus", "why": "The store does not answer"})
    assert not view.is_well
    assert plain(view).startswith("wrong: no gateway tells: The store does not answer\n\nSERVICE ")


def test_what_a_replica_calls_itself_moves_no_cursor() -> None:
    view = view_of(cluster(services=service("gateway", replica("gateway", replica="\x1b[2J[bold]x"))))
    assert "\x1b" not in plain(view)
    console = Console(file=io.StringIO(), force_terminal=True, width=200, color_system=None)
    console.print(coloured(view))
    assert isinstance(console.file, io.StringIO)
    assert "[bold]x" in console.file.getvalue()
    assert "\x1b[2J" not in console.file.getvalue()


def test_an_answer_with_nothing_in_it_is_shown_and_is_not_well() -> None:
    view = view_of({"source": "gateway"})
    assert not view.is_well
    assert plain(view).splitlines()[0] == "wrong: nothing is said of any gateway"
