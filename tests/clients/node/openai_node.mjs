// The OpenAI SDK for Node.js, as its users use it.

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { counted, executionOnceEnded, findCity, key, model, origin, prompts, tool } from "./asked.mjs";

const sdk = new OpenAI({ baseURL: `${origin}/v1`, apiKey: key, maxRetries: 0 });
const user = (content) => [{ role: "user", content }];
const ask = (content, more = {}) => sdk.chat.completions.create({ model, messages: user(content), ...more });

async function collect(stream) {
  const found = [];
  for await (const each of stream) found.push(each);
  return found;
}

test("whole answer", async () => {
  const { data, request_id: request } = await ask(prompts.COUNT).withResponse();
  const [choice] = data.choices;
  assert.equal(choice.message.content, counted);
  assert.equal(choice.message.role, "assistant");
  assert.equal(choice.finish_reason, "stop");
  assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
  assert.ok(data.kitemesh.execution_id);
  assert.ok(request);
});

test("streamed answer", async () => {
  const chunks = await collect(await ask(prompts.SLOWLY + prompts.COUNT, { stream: true }));
  const pieces = chunks.map((chunk) => chunk.choices[0].delta.content ?? "");
  assert.equal(pieces.join(""), counted);
  assert.ok(pieces.filter(Boolean).length > 5);
  assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
});

test("usage of a stream", async () => {
  const chunks = await collect(await ask(prompts.COUNT, { stream: true, stream_options: { include_usage: true } }));
  assert.deepEqual(chunks.at(-1).choices, []);
  assert.equal(chunks.at(-1).usage.completion_tokens, 40);
});

test("stream helper", async () => {
  const pieces = [];
  const stream = sdk.chat.completions.stream({ model, messages: user(prompts.SLOWLY + prompts.COUNT) });
  stream.on("content", (piece) => pieces.push(piece));
  const final = await stream.finalChatCompletion();
  assert.equal(pieces.join(""), counted);
  assert.equal(final.choices[0].message.content, counted);
  assert.equal(final.choices[0].finish_reason, "stop");
});

test("own tools, whole", async () => {
  const messages = user(prompts.FIND_TWO);
  const asked = await sdk.chat.completions.create({ model, messages, tools: [tool] });
  const [choice] = asked.choices;
  assert.equal(choice.finish_reason, "tool_calls");
  const calls = choice.message.tool_calls;
  assert.deepEqual(calls.map((call) => JSON.parse(call.function.arguments).name), ["Rome", "Oslo"]);
  messages.push(choice.message);
  for (const call of calls) {
    const content = findCity(JSON.parse(call.function.arguments).name);
    messages.push({ role: "tool", tool_call_id: call.id, content });
  }
  const answer = await sdk.chat.completions.create({ model, messages, tools: [tool] });
  assert.match(answer.choices[0].message.content, /Oslo is on the map/);
});

test("own tools, streamed", async () => {
  const found = [];
  const run = sdk.chat.completions.runTools({
    model,
    messages: user(prompts.FIND_TWO),
    stream: true,
    tools: [
      {
        type: "function",
        function: {
          ...tool.function,
          parse: JSON.parse,
          function: ({ name }) => {
            found.push(name);
            return findCity(name);
          },
        },
      },
    ],
  });
  assert.match(await run.finalContent(), /Rome is on the map/);
  assert.deepEqual(found, ["Rome", "Oslo"]);
});

test("server's tools", async () => {
  const { message } = (await ask(prompts.FORECAST)).choices[0];
  assert.match(message.content, /Paris/);
  assert.equal(message.tool_calls, undefined);
});

test("a hold and its answer", async () => {
  const stream = sdk.chat.completions.stream({ model, messages: user(prompts.DELETE) });
  let last;
  stream.on("chunk", (chunk) => {
    last = chunk;
  });
  const held = await stream.finalChatCompletion();
  assert.equal(held.choices[0].finish_reason, "tool_calls");
  const [call] = held.choices[0].message.tool_calls;
  const body = { model, approval_id: last.kitemesh.approval_id, approved_tool_execution_ids: [call.id] };
  const answer = await sdk.post("/chat/resume", { body });
  assert.equal(answer.choices[0].finish_reason, "stop");
  assert.match(answer.choices[0].message.content, /"deleted": "42"/);
});

test("reasoning", async () => {
  const { message } = (await ask(prompts.THINK)).choices[0];
  assert.equal(message.content, "Thought through.");
  assert.ok(message.reasoning_content.trim());
});

test("cut off by its length", async () => {
  assert.equal((await ask(prompts.CUT_SHORT)).choices[0].finish_reason, "length");
});

test("structured answer", async () => {
  const format = zodResponseFormat(z.object({ name: z.string() }), "city");
  const answer = await sdk.chat.completions.parse({ model, messages: user(prompts.DESCRIBE), response_format: format });
  assert.equal(typeof answer.choices[0].message.parsed.name, "string");
});

test("several choices", async () => {
  const answer = await ask(prompts.COUNT, { model: "scripted", n: 3 });
  assert.deepEqual(answer.choices.map(({ index }) => index), [0, 1, 2]);
  const stream = sdk.chat.completions.stream({ model: "scripted", messages: user(prompts.COUNT), n: 3 });
  const final = await stream.finalChatCompletion();
  const words = ({ choices }) => choices.map(({ message }) => message.content);
  assert.deepEqual(words(final), words(answer));
});

test("log probabilities", async () => {
  const answer = await ask(prompts.COUNT, { model: "scripted", logprobs: true, top_logprobs: 2 });
  const [{ logprobs }] = answer.choices;
  assert.equal(logprobs.content.map(({ token }) => token).join(""), counted);
});

test("files", async () => {
  const image = { type: "image_url", image_url: { url: `data:image/png;base64,${prompts.PIXEL}` } };
  const answer = await ask([{ type: "text", text: prompts.FILES }, image]);
  assert.match(answer.choices[0].message.content, new RegExp(prompts.PIXEL_TOLD));
});

test("conversation", async () => {
  const first = await ask(prompts.COUNT);
  const second = await ask(prompts.ROLES, { metadata: { conversation_id: first.kitemesh.conversation_id } });
  assert.equal(second.choices[0].message.content, "system user assistant user");
});

test("models", async () => {
  const ids = (await collect(sdk.models.list())).map(({ id }) => id);
  assert.ok(ids.includes(model));
  assert.equal((await sdk.models.retrieve(model)).id, model);
});

test("error classes", async () => {
  const refused = async (expected, more) => {
    const error = await ask(prompts.COUNT, more).then(assert.fail, (reason) => reason);
    assert.ok(error instanceof expected, `${error}`);
    assert.ok(error.requestID);
    return error;
  };
  for (const stream of [false, true]) {
    assert.equal((await refused(OpenAI.BadRequestError, { temperature: 9, stream })).param, "temperature");
    assert.equal((await refused(OpenAI.NotFoundError, { model: "nobody", stream })).code, "model_not_found");
    await refused(OpenAI.RateLimitError, { messages: user(prompts.LIMITED), stream });
    await refused(OpenAI.InternalServerError, { messages: user(prompts.FAILED), stream });
  }
  const stranger = new OpenAI({ baseURL: `${origin}/v1`, apiKey: "km_wrong", maxRetries: 0 });
  await assert.rejects(collect(stranger.models.list()), OpenAI.AuthenticationError);
});

test("retries", async () => {
  for (const [prompt, wanted] of [[prompts.FAILED, 2], [prompts.FAILED_LATER, 1]]) {
    let sent = 0;
    const counting = sdk.withOptions({
      maxRetries: 1,
      fetch: (...request) => {
        sent += 1;
        return fetch(...request);
      },
    });
    await assert.rejects(
      counting.chat.completions.create({ model, messages: user(prompt) }),
      OpenAI.InternalServerError,
    );
    assert.equal(sent, wanted);
  }
});

test("a stream that breaks off", async () => {
  const pieces = [];
  const stream = await ask(prompts.BROKEN_OFF, { stream: true });
  const read = async () => {
    for await (const chunk of stream) {
      assert.equal(chunk.choices[0].finish_reason, null);
      pieces.push(chunk.choices[0].delta.content ?? "");
    }
  };
  await assert.rejects(read(), OpenAI.APIError);
  assert.ok(pieces.join(""));
  assert.ok(counted.startsWith(pieces.join("")));
});

test("leaving a stream", async () => {
  const { data: stream, response } = await ask(prompts.ENDLESS, { stream: true }).withResponse();
  for await (const chunk of stream) {
    if (chunk.choices[0].delta.content) break;
  }
  const execution = await executionOnceEnded(response.headers.get("x-execution-id"));
  assert.equal(execution.status, "cancelled");
});
