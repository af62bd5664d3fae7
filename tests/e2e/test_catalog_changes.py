"""A catalog that changes under load: what runs goes on, what is new serves, and a bad file changes nothing at all."""

import concurrent.futures
import json
import re
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from cluster import SERVICES, Cluster, running_cluster, streamed_text
from tool_cluster import calling, hold, resume, until

GROUP = "0b7c1f6e-0c55-4d0e-9a41-3f1c6a1f7d10"
OTHER_GROUP = "2a0dd8b6-1f0e-4f4b-8f0f-0f4f3e6f2d11"
WORDS = 60
SLOWLY = f"@count {WORDS}\n@delay_ms 60"
HEALTH = re.compile(r"^ +([a-z-]+) +(http://\S+)/healthz$", re.MULTILINE)


def tool(description: str) -> dict[str, Any]:
    return {
        "kind": "python",
        "entry_point": "delete_record",
        "description": description,
        "effect": "once",
        "parameters": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
    }


def catalog() -> dict[str, Any]:
    return {
        "version": 1,
        "providers": {"script": {"kind": "scripted"}},
        "models": {name: {"provider": "script"} for name in ("steady", "leaving")},
        "agents": {
            "clerk": {"model": "steady", "tools": ["wipe"]},
            "leaver": {"model": "leaving", "prompt": "You leave."},
        },
        "groups": {GROUP: {"models": ["leaving", "steady"]}},
        "tools": {"wipe": tool("Wipe it.")},
        "policies": [{"tools": ["wipe"], "then": "hold"}],
    }


class Editable(NamedTuple):
    """A cluster and the file that it reads."""

    cluster: Cluster
    file: Path

    def write(self, text: str) -> None:
        """Put a text in the file's place, in one piece."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self.file)

    def offered(self) -> set[str]:
        """Return what the gateway offers now."""
        return {model["id"] for model in self.cluster.call("/v1/models").json()["data"]}

    def refusing(self) -> set[str]:
        """Return the services that refuse the file."""
        return {name for name, root in HEALTH.findall(self.cluster.printed()) if _is_refusing(root)}


def _is_refusing(root: str) -> bool:
    with urllib.request.urlopen(f"{root}/metrics", timeout=5) as reply:
        return b"\nkitemesh_catalog_refused 1.0\n" in reply.read()


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editable]:
    folder = tmp_path_factory.mktemp("changes")
    file = folder / "catalog.yaml"
    file.write_text(yaml.safe_dump(catalog()))
    with running_cluster(folder, KITEMESH_CATALOG=str(file)) as cluster:
        yield Editable(cluster, file)


def body(model: str, text: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


@contextmanager
def running_streams(cluster: Cluster, models: list[str]) -> Iterator[Callable[[], list[tuple[str, bool]]]]:
    """Stream from these models, all begun when inside; yields what returns their texts and whether they ended."""
    begun = [threading.Event() for _ in models]
    stop = threading.Event()

    def read(place: int) -> tuple[str, bool]:
        mode = {"mode": "durable" if place % 2 else "classic"}
        data = body(models[place], SLOWLY, stream=True, metadata=mode)
        request = urllib.request.Request(
            f"{cluster.origin}/v1/chat/completions",
            json.dumps(data).encode(),
            {"Authorization": f"Bearer {cluster.key}", "Content-Type": "application/json"},
        )
        lines = []
        with urllib.request.urlopen(request, timeout=60) as reply:
            for line in reply:
                lines.append(line)
                if b'"content":"' in line:
                    begun[place].set()
                if stop.is_set():
                    break
        said = b"".join(lines)
        return streamed_text(said), said.rstrip().endswith(b"data: [DONE]")

    with concurrent.futures.ThreadPoolExecutor(len(models)) as clients:
        reading = [clients.submit(read, place) for place in range(len(models))]
        try:
            assert all(event.wait(20) for event in begun)
            yield lambda: [future.result(60) for future in reading]
        finally:
            stop.set()


@pytest.mark.requirement("catalog:reload", "catalog:no-dropped-stream")
def test_streams_outlive_what_the_catalog_no_longer_has(editable: Editable) -> None:
    cluster = editable.cluster
    whole = cluster.call("/v1/chat/completions", body("steady", f"@count {WORDS}")).json()
    expected = whole["choices"][0]["message"]["content"]
    held = hold(cluster, calling(("wipe", {"id": "7"}), then="@echo done"))
    streams = ["steady", "leaving", "agent:clerk", "agent:leaver", f"group:{GROUP}"] * 2
    with running_streams(cluster, streams) as ended:
        changed = catalog()
        for kind, name in (("models", "leaving"), ("agents", "leaver"), ("groups", GROUP)):
            del changed[kind][name]
        changed["models"]["arriving"] = {"provider": "fresh", "upstream": "scripted"}
        changed["providers"]["fresh"] = {"kind": "fixed", "text": "I am new here."}
        changed["agents"]["novice"] = {"model": "arriving", "tools": ["look"]}
        changed["groups"][OTHER_GROUP] = {"models": ["arriving", "steady"], "agent": "novice"}
        changed["tools"]["look"] = tool("Look it up.")
        changed["policies"].insert(0, {"tools": ["look"], "then": "deny", "reason": "Not yet."})
        editable.write(yaml.safe_dump(changed))
        until(lambda: "arriving" in editable.offered())
        assert not editable.offered() & {"leaving", "agent:leaver", f"group:{GROUP}"}
        assert cluster.call("/v1/chat/completions", body("leaving", "hello")).status == 404
        for model in ("arriving", "agent:novice", f"group:{OTHER_GROUP}"):
            # Each service reads the file in its own time.
            assert until(partial(_text_of, cluster, model)) == "I am new here."
        editable.write("models: [")
        until(lambda: editable.refusing() == set(SERVICES))
        assert "arriving" in editable.offered()
        assert ended() == [(expected, True)] * len(streams)
    assert resume(cluster, held.whole).status == 200
    editable.write(yaml.safe_dump(changed))
    until(lambda: not editable.refusing())


def _text_of(cluster: Cluster, model: str) -> str | None:
    reply = cluster.call("/v1/chat/completions", body(model, "hello"))
    return str(reply.json()["choices"][0]["message"]["content"]) if reply.status == 200 else None


@pytest.mark.requirement("catalog:pools-have-queues")
def test_a_pool_without_queues_is_refused_until_bootstrap_made_them(editable: Editable) -> None:
    wider = catalog()
    wider["models"]["far"] = {"provider": "script", "pool": "far"}
    wider["pools"] = {"model": {"default": {}, "far": {"lanes": 2}}}
    editable.write(yaml.safe_dump(wider))
    until(lambda: editable.refusing() == set(SERVICES))
    assert "far" not in editable.offered()
    assert _text_of(editable.cluster, "steady")
    told = editable.cluster.verb("bootstrap")
    assert "created consumer far-interactive-1 of stream KM_MODEL" in told
    until(lambda: "far" in editable.offered() and not editable.refusing())
