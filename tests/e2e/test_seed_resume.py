"""The first seed's resume flow on the catalog of `make up`: its curl, its TypeScript, and the SDK its readers use."""

import json
import re
import subprocess
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from cluster import GROUP, Cluster, events
from tool_cluster import content, hold, read_held, resume

HOST = "https://your-kitemesh.example.com"
KEY = "km_your_token_here"
APPROVAL = "86dd028d-6f5c-4f13-83db-d4fe9bc5b865"
CALL = "1fb2fd25-8f78-412a-a0b8-7976e3700fc4"

ASKING = r"""
curl -X POST "https://your-kitemesh.example.com/v1/chat/completions" \
-H "Authorization: Bearer km_your_token_here" \
-H "Content-Type: application/json" \
-d '{
"model": "group:123e4567-e89b-12d3-a456-426614174000",
"messages": [
{
"role": "user",
"content": "Give a summary of the key points."
}
],
"metadata": {
"request_id": "req_demo_001",
"mode": "auto"
}
}'"""

RESUMING = r"""
curl -X POST "https://your-kitemesh.example.com/v1/chat/resume" \
-H "Authorization: Bearer km_your_token_here" \
-H "Content-Type: application/json" \
-d '{
"model": "group:123e4567-e89b-12d3-a456-426614174000",
"approval_id": "86dd028d-6f5c-4f13-83db-d4fe9bc5b865",
"approved_tool_execution_ids": [
"1fb2fd25-8f78-412a-a0b8-7976e3700fc4"
],
"messages": [
{
"role": "user",
"content": "You can continue."
}
]
}'"""

TYPESCRIPT = r"""
type ChatCompletionResponse = {
choices: Array<{
message?: {
role: string;
content: string | null;
tool_calls?: Array<{
id: string;
type: string;
function: {
name: string;
arguments: string;
};
}>;
};
finish_reason: string | null;
}>;
kitemesh?: {
approval_id?: string;
execution_id?: string;
expires_at?: string;
request_id?: string;
};
};
async function runChat() {
const response = await fetch(
"https://your-kitemesh.example.com/v1/chat/completions",
{
method: "POST",
headers: {
Authorization: "Bearer km_your_token_here",
"Content-Type": "application/json",
},
body: JSON.stringify({
model: "group:123e4567-e89b-12d3-a456-426614174000",
messages: [
{
role: "user",
content: "Create a three-step action plan.",
},
],
metadata: {
request_id: "req_demo_002",
mode: "auto",
},
}),
},
);
const payload = (await response.json()) as ChatCompletionResponse;
if (!response.ok) {
throw new Error("Chat request failed");
}
const choice = payload.choices[0];
if (choice.finish_reason === "tool_calls") {
console.log("Approval required", payload.kitemesh?.approval_id);
return;
}
console.log(choice.message?.content ?? "");
}"""

DELETING = "Delete record 42."
SUMMARY = "Give a summary of the key points."
PLAN = "Create a three-step action plan."
UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")


def pasted(cluster: Cluster, example: str, **more: str) -> str:
    """Put this cluster's host and key, and what else is given, in the place of the example's."""
    for old, new in {HOST: cluster.origin, KEY: cluster.key, **more}.items():
        assert old in example
        example = example.replace(old, new)
    return example


def in_a_shell(command: str) -> dict[str, Any]:
    done = subprocess.run(["sh", "-c", command.replace("curl ", "curl -sS ")], capture_output=True, check=True)
    return dict(json.loads(done.stdout))


@pytest.mark.requirement("resume:seeds-examples", "hold:whole-answer")
def test_the_seeds_resume_curl_goes_on_with_two_ids_pasted(cluster: Cluster) -> None:
    held = in_a_shell(pasted(cluster, ASKING, **{SUMMARY: DELETING}))
    (choice,) = held["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "delete_record", "arguments": '{"id":"42"}'}
    assert UUID.fullmatch(call["id"])
    mine = held["kitemesh"]
    assert UUID.fullmatch(mine["approval_id"])
    assert mine["execution_id"]
    assert mine["expires_at"].endswith("Z")
    assert mine["request_id"] == "req_demo_001"
    answer = in_a_shell(pasted(cluster, RESUMING, **{APPROVAL: mine["approval_id"], CALL: call["id"]}))
    assert answer["object"] == "chat.completion"
    assert answer["model"] == GROUP
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert '"deleted": "42"' in answer["choices"][0]["message"]["content"]
    assert answer["kitemesh"]["execution_id"] == mine["execution_id"]


def without_types(source: str) -> str:
    """Turn the example into JavaScript: its one type declaration and its one cast go."""
    declaration = re.compile(r"^type \w+ = \{\n.*?^\};\n(?=async function )", re.MULTILINE | re.DOTALL)
    source, declarations = declaration.subn("", source)
    source, casts = re.subn(r" as [A-Z]\w*", "", source)
    assert (declarations, casts) == (1, 1)
    return source


@pytest.mark.requirement("resume:seeds-examples")
def test_the_seeds_typescript_tells_a_held_answer_from_one_that_is_not(cluster: Cluster) -> None:
    printed = []
    for words in (DELETING, PLAN):
        source = pasted(cluster, without_types(TYPESCRIPT), **({} if words == PLAN else {PLAN: words}))
        node = ["node", "--input-type=module", "--eval", f"{source}\nawait runChat();"]
        done = subprocess.run(node, capture_output=True, check=True, text=True)
        assert done.stderr == ""
        printed.append(done.stdout.rstrip("\n"))
    held, answered = printed
    assert held.startswith("Approval required ")
    name = held.removeprefix("Approval required ")
    assert cluster.call(f"/v1/approvals/{name}").json()["status"] == "open"
    assert answered
    assert answered == content(cluster.chat(PLAN))


@pytest.fixture
def sdk(cluster: Cluster) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{cluster.origin}/v1", api_key=cluster.key, max_retries=0)


@pytest.mark.requirement("resume:seeds-examples", "hold:whole-answer")
def test_the_openai_sdk_reads_a_held_answer_and_resumes_it(sdk: openai.OpenAI) -> None:
    held = sdk.chat.completions.create(model=GROUP, messages=[{"role": "user", "content": DELETING}])
    assert held.choices[0].finish_reason == "tool_calls"
    assert held.choices[0].message.content is None
    (call,) = held.choices[0].message.tool_calls
    approval = held.model_extra["kitemesh"]["approval_id"]
    body = {"model": GROUP, "approval_id": approval, "approved_tool_execution_ids": [call.id]}
    answer = sdk.post("/chat/resume", body=body, cast_to=ChatCompletion)
    assert answer.choices[0].finish_reason == "stop"
    assert '"deleted": "42"' in answer.choices[0].message.content
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    again = sdk.post("/chat/resume", body=body, cast_to=ChatCompletion)
    assert again.choices[0].message.content == answer.choices[0].message.content


@pytest.mark.requirement("hold:streamed-answer", "resume:streamed")
def test_the_openai_sdk_streams_a_held_answer_and_its_continuation(sdk: openai.OpenAI) -> None:
    asked = [{"role": "user", "content": DELETING}]
    chunks = list(sdk.chat.completions.create(model=GROUP, messages=asked, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.content in (None, "") for chunk in chunks)
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert [call.index for call in calls] == [0] * len(calls)
    assert "".join(call.function.arguments or "" for call in calls) == '{"id":"42"}'
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["tool_calls"]
    assert [chunk for chunk in chunks if "kitemesh" in (chunk.model_extra or {})] == [chunks[-1]]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    mine = chunks[-1].model_extra["kitemesh"]
    assert {"approval_id", "execution_id", "expires_at", "request_id"} <= mine.keys()
    body = {
        "model": GROUP,
        "approval_id": mine["approval_id"],
        "approved_tool_execution_ids": [calls[0].id],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    rest = list(
        sdk.post(
            "/chat/resume",
            body=body,
            cast_to=ChatCompletion,
            stream=True,
            stream_cls=openai.Stream[ChatCompletionChunk],
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in rest if chunk.choices)
    assert '"deleted": "42"' in text
    assert [c.choices[0].finish_reason for c in rest if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert rest[-1].usage.total_tokens > 0


@pytest.mark.requirement("hold:streamed-answer", "stream:ends-with-done")
def test_a_held_stream_ends_as_every_stream_does(cluster: Cluster) -> None:
    reply = cluster.chat(DELETING, stream=True)
    assert reply.body.rstrip().endswith(b"data: [DONE]")
    last = events(reply.body)[-1]
    assert last["choices"][0]["finish_reason"] == "tool_calls"
    body = {
        "model": GROUP,
        "approval_id": last["kitemesh"]["approval_id"],
        "approved_tool_execution_ids": [],
        "stream": True,
    }
    rest = resume(cluster, body)
    assert rest.headers["Content-Type"].startswith("text/event-stream")
    assert rest.body.rstrip().endswith(b"data: [DONE]")
    assert all(event["id"] == last["id"] for event in events(rest.body))


def test_what_runs_at_once_runs_and_what_is_denied_does_not(cluster: Cluster) -> None:
    weather = content(cluster.chat("What is the weather in Paris?"))
    assert "Paris" in weather
    held = read_held(cluster.chat("Please delete record 43").json())
    answer = content(resume(cluster, held.resumption()))
    assert "denied" in answer
    assert "deleted" not in answer


COUNT: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "count_files",
        "description": "Count the files of a folder.",
        "parameters": {"type": "object", "properties": {"folder": {"type": "string"}}, "required": ["folder"]},
    },
}


@pytest.mark.requirement("tool:client-calls-are-returned")
@pytest.mark.parametrize("stored", [False, True], ids=["by-itself", "in-its-conversation"])
def test_a_clients_own_tool_is_returned_and_its_result_goes_on(sdk: openai.OpenAI, *, stored: bool) -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": '@call count_files {"folder": "/tmp"}'}]
    asked = sdk.chat.completions.create(model=GROUP, messages=messages, tools=[COUNT])
    choice = asked.choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("count_files", {"folder": "/tmp"})
    assert "approval_id" not in asked.model_extra["kitemesh"]
    messages += [
        choice.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "seven files"},
    ]
    metadata = {"conversation_id": asked.model_extra["kitemesh"]["conversation_id"]} if stored else openai.NOT_GIVEN
    answer = sdk.chat.completions.create(model=GROUP, messages=messages, tools=[COUNT], metadata=metadata)
    assert answer.choices[0].finish_reason == "stop"
    assert "count_files: seven files" in answer.choices[0].message.content


@pytest.mark.requirement("tool:server-before-client")
@pytest.mark.parametrize("stored", [False, True], ids=["by-itself", "in-its-conversation"])
def test_of_one_step_the_servers_calls_run_and_the_clients_are_returned(sdk: openai.OpenAI, *, stored: bool) -> None:
    text = '@call count_files {"folder": "/tmp"}\n@call get_weather {"city": "Oslo"}'
    messages: list[dict[str, Any]] = [{"role": "user", "content": text}]
    asked = sdk.chat.completions.create(model=GROUP, messages=messages, tools=[COUNT])
    (call,) = asked.choices[0].message.tool_calls
    assert call.function.name == "count_files"
    messages += [
        asked.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "seven files"},
    ]
    metadata = {"conversation_id": asked.model_extra["kitemesh"]["conversation_id"]} if stored else openai.NOT_GIVEN
    answer = sdk.chat.completions.create(model=GROUP, messages=messages, tools=[COUNT], metadata=metadata)
    said = answer.choices[0].message.content
    assert "count_files: seven files" in said
    if stored:
        assert "Oslo" in said


@pytest.mark.requirement("tool:server-before-client")
def test_a_held_call_beside_a_clients_is_decided_before_the_clients_is_returned(cluster: Cluster) -> None:
    text = '@call count_files {"folder": "/tmp"}\n@call delete_record {"id": "7"}'
    held = hold(cluster, text, "assistant", tools=[COUNT])
    assert len(held.calls) == 1
    returned = resume(cluster, held.whole).json()
    (choice,) = returned["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["count_files"]
    assert "approval_id" not in returned["kitemesh"]
    assert held.calls[0] not in {call["id"] for call in choice["message"]["tool_calls"]}
