// The reader of the agents' published example, which parses every line of data as JSON, put to more uses.

import assert from "node:assert/strict";
import { test } from "node:test";
import { agentKey, counted, origin, prompts } from "./asked.mjs";

const PATH = `${origin}/api/agents/assistant/chat`;
const HEADERS = { authorization: `Bearer ${agentKey}`, "content-type": "application/json" };

const post = (message, more = {}) =>
  fetch(PATH, { method: "POST", headers: HEADERS, body: JSON.stringify({ message, ...more }) });

async function read(response) {
  assert.equal(response.status, 200);
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  const events = [];
  while (true) {
    const { done, value } = await reader.read();
    if (done) return events;
    for (const line of decoder.decode(value).split("\n")) {
      if (line.startsWith("data: ")) events.push(JSON.parse(line.slice(6)));
    }
  }
}

const said = (events) => events.filter(({ type }) => type === "delta").map(({ content }) => content).join("");

async function history(conversation, query = "") {
  const response = await fetch(`${PATH}?conversation_id=${conversation}${query}`, { headers: HEADERS });
  assert.equal(response.status, 200);
  return response.json();
}

test("whole answer", async () => {
  const message = await (await post(prompts.COUNT)).json();
  assert.equal(message.role, "assistant");
  assert.equal(message.content, counted);
  assert.ok(Number.isSafeInteger(message.id));
  assert.match(message.created_at, /^\d{4}-\d\d-\d\dT.*Z$/);
});

test("streamed answer", async () => {
  const events = await read(await post(prompts.SLOWLY + prompts.COUNT, { stream: true }));
  assert.equal(events[0].type, "start");
  assert.equal(events.at(-1).type, "done");
  assert.equal(said(events), counted);
  assert.equal(events.at(-1).message.content, counted);
  assert.equal(events.at(-1).message.id, events[0].id);
  assert.ok(events.length > 5);
});

test("server's tools", async () => {
  const events = await read(await post(prompts.FORECAST, { stream: true }));
  assert.match(said(events), /Paris/);
  const { messages } = await history(events.at(-1).message.conversation_id);
  assert.deepEqual(messages.map(({ role }) => role), ["user", "assistant", "tool", "assistant"]);
  assert.equal(messages[2].tool_call_id, messages[1].tool_calls[0].id);
});

test("a hold and its answer", async () => {
  const held = await (await post(prompts.DELETE)).json();
  assert.equal(held.content, null);
  const decisions = held.tool_calls.map(({ id }) => ({ tool_execution_id: id, approved: true }));
  const path = `${origin}/v1/approvals/${held.approval_id}/decide`;
  const decided = await fetch(path, { method: "POST", headers: HEADERS, body: JSON.stringify({ decisions }) });
  assert.equal(decided.status, 200);
  for (;;) {
    const { messages } = await history(held.conversation_id);
    const last = messages.at(-1);
    if (last.role === "assistant" && last.content) {
      assert.match(last.content, /"deleted": "42"/);
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
});

test("conversation", async () => {
  const first = await (await post(prompts.COUNT)).json();
  const second = await (await post(prompts.ROLES, { conversation_id: first.conversation_id })).json();
  assert.equal(second.content, "system user assistant user");
  assert.ok(second.id > first.id);
  const whole = await history(first.conversation_id);
  assert.equal(whole.meta.total, 4);
  assert.equal(whole.meta.has_more, false);
  const newest = await history(first.conversation_id, "&limit=2");
  assert.deepEqual(newest.messages, whole.messages.slice(2));
  assert.equal(newest.meta.has_more, true);
  const after = await history(first.conversation_id, `&after=${whole.messages[0].id}&limit=1`);
  assert.deepEqual(after.messages, [whole.messages[1]]);
});

test("clearing", async () => {
  const { conversation_id: conversation } = await (await post(prompts.COUNT)).json();
  const clear = () => fetch(`${PATH}?conversation_id=${conversation}`, { method: "DELETE", headers: HEADERS });
  assert.deepEqual(await (await clear()).json(), { success: true, deleted: 2 });
  assert.deepEqual(await (await clear()).json(), { success: true, deleted: 0 });
  assert.deepEqual((await history(conversation)).messages, []);
});

test("context", async () => {
  const answer = await (await post(prompts.COUNT, { context: { user: { name: "John" } }, system_prompt: "Be brief." })).json();
  assert.equal(answer.content, counted);
});

test("error classes", async () => {
  const bad = await post("");
  assert.equal(bad.status, 400);
  assert.deepEqual((await bad.json()).error, { code: 400, message: "Invalid message" });
  const limited = await post(prompts.LIMITED);
  assert.equal(limited.status, 429);
  assert.ok(Number(limited.headers.get("retry-after")) > 0);
  const failed = await post(prompts.FAILED);
  assert.equal(failed.status, 500);
  assert.equal((await failed.json()).error.message, "AI service error");
  const unknown = await fetch(PATH.replace("assistant", "nobody"), { method: "POST", headers: HEADERS, body: '{"message": "Hi"}' });
  assert.equal(unknown.status, 404);
});

test("a stream that breaks off", async () => {
  const events = await read(await post(prompts.BROKEN_OFF, { stream: true }));
  assert.equal(events.at(-1).type, "error");
  assert.ok(events.at(-1).message);
  assert.ok(said(events));
  assert.ok(counted.startsWith(said(events)));
});
