// The AI SDK with its provider for endpoints that are compatible with OpenAI's.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import * as ai from "ai";
import { z } from "zod";
import { counted, executionOnceEnded, findCity, key, model as name, origin, prompts } from "./asked.mjs";

const { APICallError, generateText, streamText } = ai;
const stopAfter = ai.isStepCount ?? ai.stepCountIs;
const provider = createOpenAICompatible({ name: "kitemesh", baseURL: `${origin}/v1`, apiKey: key, includeUsage: true });
const model = provider(name);
const structured = createOpenAICompatible({
  name: "structured",
  baseURL: `${origin}/v1`,
  apiKey: key,
  supportsStructuredOutputs: true,
});
const quiet = { maxRetries: 0, onError() {} };
const finder = (found = []) =>
  ai.tool({
    description: "Say where a city is.",
    inputSchema: z.object({ name: z.string() }),
    execute: ({ name: city }) => {
      found.push(city);
      return findCity(city);
    },
  });

async function collect(stream) {
  const found = [];
  for await (const each of stream) found.push(each);
  return found;
}

test("whole answer", async () => {
  const answer = await generateText({ model, prompt: prompts.COUNT, maxRetries: 0 });
  assert.equal(answer.text, counted);
  assert.equal(answer.finishReason, "stop");
  assert.equal(answer.usage.outputTokens, 40);
});

test("streamed answer", async () => {
  const answer = streamText({ model, prompt: prompts.SLOWLY + prompts.COUNT, ...quiet });
  const pieces = await collect(answer.textStream);
  assert.equal(pieces.join(""), counted);
  assert.ok(pieces.length > 5);
  assert.equal(await answer.finishReason, "stop");
});

test("usage of a stream", async () => {
  const answer = streamText({ model, prompt: prompts.COUNT, ...quiet });
  await answer.consumeStream();
  assert.equal((await answer.usage).outputTokens, 40);
});

test("own tools, whole", async () => {
  const found = [];
  const tools = { find_city: finder(found) };
  const answer = await generateText({ model, tools, prompt: prompts.FIND_TWO, stopWhen: stopAfter(3), maxRetries: 0 });
  assert.deepEqual(found.toSorted(), ["Oslo", "Rome"]);
  assert.equal(answer.steps.length, 2);
  assert.match(answer.text, /Oslo is on the map/);
});

test("own tools, streamed", async () => {
  const tools = { find_city: finder() };
  const answer = streamText({ model, tools, prompt: prompts.FIND_TWO, stopWhen: stopAfter(3), ...quiet });
  const parts = await collect(answer.fullStream);
  const calls = parts.filter(({ type }) => type === "tool-call");
  assert.deepEqual(calls.map(({ input }) => input.name), ["Rome", "Oslo"]);
  assert.equal(parts.filter(({ type }) => type === "tool-result").length, 2);
  assert.deepEqual(parts.filter(({ type }) => type === "error"), []);
  const said = parts.filter(({ type }) => type === "text-delta").map(({ text }) => text);
  assert.match(said.join(""), /Rome is on the map/);
});

test("server's tools", async () => {
  const answer = await generateText({ model, prompt: prompts.FORECAST, maxRetries: 0 });
  assert.match(answer.text, /Paris/);
  assert.deepEqual(answer.toolCalls, []);
});

test("a hold and its answer", async () => {
  const include = { responseBody: true };
  const held = await generateText({ model, prompt: prompts.DELETE, maxRetries: 0, include, experimental_include: include });
  assert.equal(held.finishReason, "tool-calls");
  const [call] = held.toolCalls;
  assert.equal(call.toolName, "delete_record");
  const { approval_id } = held.response.body.kitemesh;
  const answer = await fetch(`${origin}/v1/chat/resume`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify({ model: name, approval_id, approved_tool_execution_ids: [call.toolCallId] }),
  });
  assert.match((await answer.json()).choices[0].message.content, /"deleted": "42"/);
});

test("reasoning", async () => {
  const answer = streamText({ model, prompt: prompts.THINK, ...quiet });
  const kinds = (await collect(answer.fullStream)).map(({ type }) => type);
  assert.ok(kinds.indexOf("reasoning-start") < kinds.indexOf("reasoning-end"));
  assert.ok(kinds.indexOf("reasoning-end") < kinds.indexOf("text-end"));
  assert.ok((await answer.reasoningText).trim());
  assert.equal(await answer.text, "Thought through.");
});

test("cut off by its length", async () => {
  const answer = await generateText({ model, prompt: prompts.CUT_SHORT, maxRetries: 0 });
  assert.equal(answer.finishReason, "length");
});

test("structured answer", async () => {
  const output = ai.Output.object({ schema: z.object({ name: z.string() }) });
  const answer = await generateText({ model: structured(name), output, prompt: prompts.DESCRIBE, maxRetries: 0 });
  assert.equal(typeof answer.output.name, "string");
});

test("files", async () => {
  const image = { type: "image", image: prompts.PIXEL, mediaType: "image/png" };
  const content = [{ type: "text", text: prompts.FILES }, image];
  const answer = await generateText({ model, messages: [{ role: "user", content }], maxRetries: 0 });
  assert.match(answer.text, new RegExp(prompts.PIXEL_TOLD));
});

test("conversation", async () => {
  const messages = [
    { role: "user", content: "Hello" },
    { role: "assistant", content: "Hi." },
    { role: "user", content: prompts.ROLES },
  ];
  const answer = await generateText({ model, messages, maxRetries: 0 });
  assert.equal(answer.text, "system user assistant user");
});

test("error classes", async () => {
  const refused = async (prompt, more = {}) => {
    const error = await generateText({ model, prompt, maxRetries: 0, ...more }).then(assert.fail, (reason) => reason);
    assert.ok(APICallError.isInstance(error), `${error}`);
    return error;
  };
  const bad = await refused(prompts.COUNT, { temperature: 9 });
  assert.equal(bad.statusCode, 400);
  assert.match(bad.message, /temperature/);
  assert.equal((await refused(prompts.COUNT, { model: provider("nobody") })).statusCode, 404);
  assert.equal((await refused(prompts.LIMITED)).statusCode, 429);
  const stranger = createOpenAICompatible({ name: "stranger", baseURL: `${origin}/v1`, apiKey: "km_wrong" });
  assert.equal((await refused(prompts.COUNT, { model: stranger(name) })).statusCode, 401);
});

test("retries", async () => {
  const error = await generateText({ model, prompt: prompts.LIMITED, maxRetries: 1 }).then(assert.fail, (reason) => reason);
  assert.ok(ai.RetryError.isInstance(error), `${error}`);
  assert.deepEqual(error.errors.map(({ statusCode }) => statusCode), [429, 429]);
});

test("a stream that breaks off", async () => {
  const answer = streamText({ model, prompt: prompts.BROKEN_OFF, ...quiet });
  const parts = await collect(answer.fullStream);
  const said = parts.filter(({ type }) => type === "text-delta").map(({ text }) => text);
  assert.ok(said.join(""));
  assert.ok(counted.startsWith(said.join("")));
  assert.equal(parts.filter(({ type }) => type === "error").length, 1);
  assert.deepEqual(
    parts.filter(({ type }) => type === "finish").map(({ finishReason }) => finishReason).filter((reason) => reason === "stop"),
    [],
  );
});

test("leaving a stream", async () => {
  const leaving = new AbortController();
  let execution;
  const watching = createOpenAICompatible({
    name: "watching",
    baseURL: `${origin}/v1`,
    apiKey: key,
    fetch: async (...request) => {
      const answer = await fetch(...request);
      execution = answer.headers.get("x-execution-id");
      return answer;
    },
  });
  const answer = streamText({
    model: watching(name),
    prompt: prompts.ENDLESS,
    abortSignal: leaving.signal,
    ...quiet,
  });
  for await (const part of answer.fullStream) {
    if (part.type === "text-delta") leaving.abort();
  }
  assert.equal((await executionOnceEnded(execution)).status, "cancelled");
});
