"""From a file on a disk to what a model is told, on the real cluster."""

from pathlib import Path
from typing import Any

import pytest

from cluster import Cluster

QUESTION = "@roles\nWhen are the blades of turbines inspected?"


def heard(cluster: Cluster, text: str, *, retrieves: bool = True) -> Any:
    """Return what the model says, whose prompt may have passages in it."""
    body = {
        "messages": [{"role": "user", "content": text}],
        "metadata": {"enable_l0_retrieval": retrieves},
        "stream": False,
    }
    reply = cluster.call("/api/kernel2/chat", body)
    assert reply.status == 200, reply.body
    return reply.json()["choices"][0]["message"]["content"]


@pytest.mark.requirement("kernel:retrieval", "knowledge:command", "knowledge:native-route")
def test_what_was_stored_is_found_and_what_was_removed_is_not(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "turbines.md"
    file.write_text("# Turbines\n\nA turbine's blades are inspected every winter.\n")
    assert heard(cluster, QUESTION) == "user"
    assert cluster.verb("knowledge", "add", str(file)) == "turbines.md: stored, 1 passage\n"
    assert heard(cluster, QUESTION) == "system user"
    assert heard(cluster, QUESTION, retrieves=False) == "user"
    assert heard(cluster, '@roles\n"blades" -turbine -inspected') == "system user"
    assert heard(cluster, "@roles\nxylophones") == "user"
    (listed,) = cluster.call("/v1/knowledge").json()["data"]
    assert (listed["name"], listed["passage_count"]) == ("turbines.md", 1)
    assert cluster.call(f"/v1/knowledge/{listed['id']}", method="DELETE").status == 200
    assert heard(cluster, QUESTION) == "user"
    assert "has no documents" in cluster.verb("knowledge", "list")
