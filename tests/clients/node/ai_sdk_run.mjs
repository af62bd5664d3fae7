// The AI SDK with its provider for compatible endpoints at the run API, which streams unless it is told not to.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import * as ai from "ai";
import { z } from "zod";
import { counted, findCity, key, model as name, origin, prompts } from "./asked.mjs";

const { generateText, streamText } = ai;
const stopAfter = ai.isStepCount ?? ai.stepCountIs;
const provider = createOpenAICompatible({ name: "kitemesh", baseURL: `${origin}/run/v1`, apiKey: key });
const whole = createOpenAICompatible({
  name: "kitemesh",
  baseURL: `${origin}/run/v1`,
  apiKey: key,
  transformRequestBody: (body) => ({ ...body, stream: body.stream ?? false }),
});
const model = provider(name);
const quiet = { maxRetries: 0, onError() {} };

test("whole answer", async () => {
  const answer = await generateText({ model: whole(name), prompt: prompts.COUNT, maxRetries: 0 });
  assert.equal(answer.text, counted);
});

test("streamed answer", async () => {
  const answer = streamText({ model, prompt: prompts.COUNT, ...quiet });
  assert.equal(await answer.text, counted);
  assert.equal(await answer.finishReason, "stop");
});

test("own tools, streamed", async () => {
  const tools = {
    find_city: ai.tool({ inputSchema: z.object({ name: z.string() }), execute: (input) => findCity(input.name) }),
  };
  const answer = streamText({ model, tools, prompt: prompts.FIND_TWO, stopWhen: stopAfter(3), ...quiet });
  assert.match(await answer.text, /Oslo is on the map/);
});

test("conversation", async () => {
  const providerOptions = { kitemesh: { conversationId: crypto.randomUUID() } };
  await streamText({ model, prompt: prompts.COUNT, providerOptions, ...quiet }).text;
  const answer = streamText({ model, prompt: prompts.ROLES, providerOptions, ...quiet });
  assert.equal(await answer.text, "system user assistant user");
});

test("error classes", async () => {
  const refused = (prompt, more) => generateText({ model, prompt, maxRetries: 0, ...more }).then(assert.fail, (error) => error);
  assert.equal((await refused(prompts.COUNT, { temperature: 9 })).statusCode, 400);
  assert.equal((await refused(prompts.COUNT, { model: provider("nobody") })).statusCode, 404);
  assert.equal((await refused(prompts.LIMITED, {})).statusCode, 429);
});

test("a stream that breaks off", async () => {
  const parts = [];
  for await (const part of streamText({ model, prompt: prompts.BROKEN_OFF, ...quiet }).fullStream) parts.push(part);
  assert.equal(parts.filter(({ type }) => type === "error").length, 1);
  const said = parts.filter(({ type }) => type === "text-delta").map(({ text }) => text).join("");
  assert.ok(said);
  assert.ok(counted.startsWith(said));
});
