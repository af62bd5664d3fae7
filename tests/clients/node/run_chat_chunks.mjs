// The UI message stream by itself: each of its chunks against the AI SDK's schema, and the messages that they make.

import assert from "node:assert/strict";
import { test } from "node:test";
import * as ai from "ai";
import { agentKey, counted, origin, prompts } from "./asked.mjs";

const DELETE_TWO = '@call delete_record {"id": "7"}\n@call delete_record {"id": "8"}';
const NOTHING_FITS = '@call get_weather {"town": "Paris"}\n@call nothing_like_it\n@then\n@echo Never mind.';

function post(text, more = {}) {
  return fetch(`${origin}/run/api/chat`, {
    method: "POST",
    headers: { authorization: `Bearer ${agentKey}`, "content-type": "application/json" },
    body: JSON.stringify({ messages: [{ role: "user", parts: [{ type: "text", text }] }], ...more }),
  });
}

async function chunks(text, more) {
  const answer = await post(text, more);
  assert.equal(answer.status, 200);
  const found = [];
  for await (const chunk of ai.parseJsonEventStream({ stream: answer.body, schema: ai.uiMessageChunkSchema })) {
    assert.ok(chunk.success, `${JSON.stringify(chunk.rawValue)} ${chunk.error}`);
    found.push(chunk.value);
  }
  return found;
}

async function messages(found) {
  const made = [];
  for await (const message of ai.readUIMessageStream({ stream: ReadableStream.from(found), terminateOnError: true })) {
    made.push(structuredClone(message));
  }
  return made;
}

test("every chunk fits the schema", async () => {
  const { COUNT, THINK, FORECAST, DELETE, BROKEN_OFF } = prompts;
  for (const executionMode of ["classic", "durable"]) {
    for (const prompt of [COUNT, THINK, FORECAST, DELETE, DELETE_TWO, NOTHING_FITS, BROKEN_OFF]) {
      const found = await chunks(prompt, { executionMode });
      assert.equal(found[0].type, "start");
      assert.equal(found.at(-1).type, prompt === BROKEN_OFF ? "error" : "finish");
    }
  }
});

test("message by message", async () => {
  const found = await chunks(prompts.SLOWLY + prompts.COUNT);
  const made = await messages(found);
  const texts = made.map(({ parts }) => parts.findLast(({ type }) => type === "text")?.text ?? "");
  assert.ok(new Set(texts).size > 5);
  assert.equal(texts.at(-1), counted);
  assert.equal(made.at(-1).id, found[0].messageId);
});

test("a tool that fails", async () => {
  const { parts } = (await messages(await chunks(NOTHING_FITS))).at(-1);
  const calls = parts.filter(({ toolCallId }) => toolCallId);
  assert.deepEqual(calls.map(({ state }) => state), ["output-error", "output-error"]);
  assert.ok(calls.every(({ errorText }) => errorText));
  assert.equal(parts.at(-1).text, "Never mind.");
});

test("whole answer", async () => {
  const whole = await (await post(prompts.COUNT, { stream: false })).json();
  assert.equal(whole.object, "chat.completion");
  assert.equal(whole.choices[0].message.content, counted);
  assert.ok(whole.conversationId);
});
