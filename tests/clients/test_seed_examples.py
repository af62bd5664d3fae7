"""The examples that the APIs' publishers give: curl, TypeScript, `http.client` and `fetch`."""

import json

import pytest

from clients import prompts
from clients.node_clients import NodeClient
from clients.seed_examples import in_a_shell, in_node, in_python, read_example, read_reply
from cluster import Cluster, events, streamed_text

KERNEL2 = "/api/kernel2/chat"
AGENTS = "/api/agents/{id}/chat"
RUN_CHAT = "/run/api/chat"
RUN_COMPLETIONS = "/run/v1/chat/completions"
STORY = prompts.SLOWLY + prompts.COUNT
ARTIFICIAL = "Tell me about artificial intelligence."
ANSWERED = ("{id}", "assistant")


@pytest.mark.client("curl")
@pytest.mark.case("whole answer")
@pytest.mark.requirement("clients:published-examples")
def test_the_first_seeds_command_is_answered(cluster: Cluster) -> None:
    answer = json.loads(in_a_shell(read_example("completions_asked.sh", cluster)))
    assert answer["choices"][0]["message"]["content"]
    assert answer["kitemesh"]["request_id"] == "req_demo_001"


@pytest.mark.client("curl")
@pytest.mark.case("streamed answer")
@pytest.mark.requirement("clients:published-examples")
def test_the_first_seeds_streaming_command_is_answered_to_the_end(cluster: Cluster) -> None:
    words = ("Prepare a detailed response.", STORY)
    printed = in_a_shell(read_example("completions_streamed.sh", cluster, words)).encode()
    assert streamed_text(printed) == prompts.COUNTED
    assert printed.endswith(b"\ndata: [DONE]\n\n")


@pytest.mark.client("curl")
@pytest.mark.case("a hold and its answer")
@pytest.mark.requirement("clients:published-examples")
def test_the_first_seeds_resume_command_goes_on(cluster: Cluster) -> None:
    asking = read_example("completions_asked.sh", cluster, ("Give a summary of the key points.", prompts.DELETE))
    held = json.loads(in_a_shell(asking))
    ids = [
        ("86dd028d-6f5c-4f13-83db-d4fe9bc5b865", held["kitemesh"]["approval_id"]),
        ("1fb2fd25-8f78-412a-a0b8-7976e3700fc4", held["choices"][0]["message"]["tool_calls"][0]["id"]),
    ]
    answer = json.loads(in_a_shell(read_example("completions_resumed.sh", cluster, *ids)))
    assert '"deleted": "42"' in answer["choices"][0]["message"]["content"]


@pytest.mark.node22
@pytest.mark.client("TypeScript")
@pytest.mark.parametrize(
    ("words", "printed"),
    [
        pytest.param(prompts.COUNT, prompts.COUNTED, marks=pytest.mark.case("whole answer")),
        pytest.param(prompts.DELETE, "Approval required ", marks=pytest.mark.case("a hold and its answer")),
    ],
    ids=["answered", "held"],
)
@pytest.mark.requirement("clients:published-examples")
def test_the_first_seeds_typescript_runs_as_it_is(cluster: Cluster, words: str, printed: str) -> None:
    source = read_example("completions.ts", cluster, ("Create a three-step action plan.", words))
    node = NodeClient("", "node22", "ai").node
    assert in_node(f"{source}\nawait runChat();", node, language="module-typescript").startswith(printed)


@pytest.mark.client("curl")
@pytest.mark.case("streamed answer", RUN_COMPLETIONS)
@pytest.mark.requirement("clients:published-examples")
def test_the_second_seeds_completions_command_streams(cluster: Cluster) -> None:
    command = read_example("run_completions.sh", cluster, ("string", "scripted"))
    headers, body = read_reply(in_a_shell(command, "-i"))
    assert headers[":status"] == "200"
    assert streamed_text(body.encode())


@pytest.mark.client("curl")
@pytest.mark.case("streamed answer", RUN_CHAT)
@pytest.mark.requirement("clients:published-examples")
def test_the_second_seeds_chat_command_streams(cluster: Cluster) -> None:
    headers, body = read_reply(in_a_shell(read_example("run_chat.sh", cluster), "-i"))
    assert headers[":status"] == "200"
    assert headers["x-vercel-ai-ui-message-stream"] == "v1"
    assert [event["type"] for event in events(body.encode())][-1] == "finish"


@pytest.mark.client("curl")
@pytest.mark.case("streamed answer", KERNEL2)
@pytest.mark.requirement("clients:published-examples")
def test_the_third_seeds_command_streams_chunks_with_a_choice_each(cluster: Cluster) -> None:
    printed = in_a_shell(read_example("kernel2.sh", cluster, (ARTIFICIAL, STORY)))
    chunks = events(printed.encode())
    assert all(isinstance(chunk["choices"][0]["delta"], dict) for chunk in chunks)
    assert streamed_text(printed.encode()) == prompts.COUNTED
    assert printed.count("data: [DONE]") == 1
    assert printed.endswith("data: [DONE]\n\n")


@pytest.mark.client("http.client")
@pytest.mark.case("streamed answer", KERNEL2)
@pytest.mark.requirement("clients:published-examples")
def test_the_third_seeds_python_prints_the_answer(cluster: Cluster) -> None:
    assert in_python(read_example("kernel2.py.txt", cluster, (ARTIFICIAL, STORY))) == prompts.COUNTED


@pytest.mark.client("http.client")
@pytest.mark.case("a stream that breaks off", KERNEL2)
def test_the_third_seeds_python_survives_a_stream_that_breaks_off(cluster: Cluster) -> None:
    printed = in_python(read_example("kernel2.py.txt", cluster, (ARTIFICIAL, prompts.BROKEN_OFF)))
    assert printed
    assert prompts.COUNTED.startswith(printed)


@pytest.mark.client("curl")
@pytest.mark.case("whole answer", AGENTS)
@pytest.mark.requirement("clients:published-examples")
def test_the_fourth_seeds_simple_command_is_answered(cluster: Cluster) -> None:
    answer = json.loads(in_a_shell(read_example("agents_simple.sh", cluster, ANSWERED)))
    assert answer["role"] == "assistant"
    assert answer["content"]
    assert isinstance(answer["id"], int)
    assert answer["conversation_id"]


@pytest.mark.client("curl")
@pytest.mark.case("context", AGENTS)
@pytest.mark.requirement("clients:published-examples")
def test_the_fourth_seeds_command_with_a_context_is_answered(cluster: Cluster) -> None:
    answer = json.loads(in_a_shell(read_example("agents_context.sh", cluster, ANSWERED)))
    assert answer["role"] == "assistant"
    assert answer["content"]


@pytest.mark.client("fetch")
@pytest.mark.case("streamed answer", AGENTS)
@pytest.mark.requirement("clients:published-examples")
def test_the_fourth_seeds_reader_prints_the_answer(cluster: Cluster) -> None:
    example = read_example("agents_streamed.js", cluster, ANSWERED, ("Tell me a story", STORY))
    assert in_node(example) == prompts.COUNTED
