"""The clients that run in Node.js: every case of every script is a test here."""

from collections.abc import Callable
from typing import Any

import pytest

from clients.node_clients import NodeClient
from cluster import Cluster

RUN = "/run/v1/chat/completions"

CLIENTS = {
    "openai-node": NodeClient("openai_node.mjs", "node", "openai"),
    "openai-node, Node 22": NodeClient("openai_node.mjs", "node22", "openai"),
    "ai": NodeClient("ai_sdk.mjs", "node", "ai"),
    "ai, Node 22": NodeClient("ai_sdk.mjs", "node22", "ai"),
    "ai, chat": NodeClient("run_chat.mjs", "node", "ai", "/run/api/chat"),
    "ai, chat, Node 22": NodeClient("run_chat.mjs", "node22", "ai", "/run/api/chat"),
    "ai, chunks": NodeClient("run_chat_chunks.mjs", "node", "ai", "/run/api/chat"),
    "ai, chunks, Node 22": NodeClient("run_chat_chunks.mjs", "node22", "ai", "/run/api/chat"),
    "ai, run": NodeClient("ai_sdk_run.mjs", "node", "ai", RUN),
    "ai, run, Node 22": NodeClient("ai_sdk_run.mjs", "node22", "ai", RUN),
    "fetch": NodeClient("fetch_agents.mjs", "node", "", "/api/agents/{id}/chat"),
}

Results = dict[str, str | None]


def each_case() -> list[Any]:
    found = []
    for name, client in CLIENTS.items():
        marks = [pytest.mark.client(name.partition(",")[0], client.version)]
        if client.packages == "node22":
            marks.append(pytest.mark.node22)
        found += [
            pytest.param(name, case, marks=[*marks, pytest.mark.case(case, client.family)], id=f"{name}: {case}")
            for case in client.cases()
        ]
    return found


@pytest.fixture(scope="session")
def came_of(cluster: Cluster, agent_key: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Results]:
    """Run each script once, when the first of its cases is asked for."""
    known: dict[str, Results] = {}

    def look_up(name: str) -> Results:
        if name not in known:
            known[name] = CLIENTS[name].run(cluster, agent_key, tmp_path_factory.mktemp("node"))
        return known[name]

    return look_up


@pytest.mark.requirement("clients:ai-sdk", "clients:openai-node")
@pytest.mark.parametrize(("client", "case"), each_case())
def test_a_client_in_node_gets_what_it_expects(came_of: Callable[[str], Results], client: str, case: str) -> None:
    error = came_of(client)[case]
    assert error is None, error
