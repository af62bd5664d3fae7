// The AI SDK's own chat over `POST /run/api/chat`: every chunk is checked by the SDK before it is used.

import assert from "node:assert/strict";
import { test } from "node:test";
import * as ai from "ai";
import { counted, origin, prompts } from "./asked.mjs";
import { State } from "./run_chat_state.mjs";

const { AbstractChat, DefaultChatTransport, lastAssistantMessageIsCompleteWithApprovalResponses, validateUIMessages } = ai;
const api = `${origin}/run/api/chat`;
const png =
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const image = { type: "file", url: png, mediaType: "image/png", filename: "dot.png" };

class Chat extends AbstractChat {
  constructor(options = {}) {
    const { body, headers, id, messages = [], ...more } = options;
    const requests = [];
    const watching = async (url, init) => {
      const answer = await fetch(url, init);
      requests.push({ url: String(url), method: init.method, body: init.body && JSON.parse(init.body), answer });
      return answer;
    };
    const transport = new DefaultChatTransport({ api, body, headers, fetch: watching });
    super({ id: id ?? crypto.randomUUID(), state: new State(messages), transport, ...more });
    this.requests = requests;
  }

  get last() {
    return this.messages.at(-1);
  }

  get text() {
    return this.last.parts.filter(({ type }) => type === "text").map(({ text }) => text).join("|");
  }

  get tools() {
    return this.messages.flatMap(({ parts }) => parts.filter(({ type }) => type.startsWith("tool-")));
  }

  async valid() {
    assert.equal(this.error, undefined);
    assert.equal(this.status, "ready");
    await validateUIMessages({ messages: this.messages });
  }

  async speaking() {
    const speaks = (message) => message?.role === "assistant" && message.parts.some(({ type }) => type === "text");
    while (!speaks(this.last)) await new Promise((done) => setTimeout(done, 5));
  }

  async settled() {
    while (["submitted", "streaming"].includes(this.status)) await new Promise((done) => setTimeout(done, 5));
  }
}

async function approving(chat, decide) {
  for (const part of chat.tools.filter(({ state }) => state === "approval-requested")) {
    await chat.addToolApprovalResponse({ id: part.approval.id, ...decide(part) });
  }
  await new Promise((done) => setTimeout(done, 0));
  await chat.settled();
}

const automatic = { sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses };

test("streamed answer", async () => {
  const chat = new Chat();
  await chat.sendMessage({ text: prompts.SLOWLY + prompts.COUNT });
  await chat.valid();
  assert.equal(chat.text, counted);
  assert.deepEqual(chat.messages.map(({ role }) => role), ["user", "assistant"]);
  assert.equal(chat.requests[0].answer.headers.get("x-vercel-ai-ui-message-stream"), "v1");
  assert.equal(chat.last.metadata.conversationId, chat.id);
});

test("conversation", async () => {
  const chat = new Chat();
  await chat.sendMessage({ text: "Hello" });
  await chat.sendMessage({ text: prompts.ROLES });
  await chat.valid();
  assert.equal(chat.messages.length, 4);
  assert.match(chat.text, /user assistant user$/);
});

test("reasoning", async () => {
  const chat = new Chat();
  await chat.sendMessage({ text: prompts.THINK });
  await chat.valid();
  assert.ok(chat.last.parts.find(({ type }) => type === "reasoning").text.trim());
  assert.equal(chat.text, "Thought through.");
});

test("server's tools", async () => {
  const chat = new Chat();
  await chat.sendMessage({ text: prompts.FORECAST });
  await chat.valid();
  const [part] = chat.tools;
  assert.deepEqual([part.type, part.state, part.input], ["tool-get_weather", "output-available", { city: "Paris" }]);
  assert.equal(part.output.city, "Paris");
  assert.equal(chat.last.parts.filter(({ type }) => type === "step-start").length, 2);
});

async function holdAndApprove(executionMode) {
  const chat = new Chat({ ...automatic, body: { executionMode } });
  await chat.sendMessage({ text: prompts.DELETE });
  await chat.valid();
  assert.deepEqual(chat.tools.map(({ state }) => state), ["approval-requested"]);
  const { id } = chat.last;
  await approving(chat, () => ({ approved: true }));
  await chat.valid();
  assert.equal(chat.last.id, id);
  assert.equal(chat.messages.length, 2);
  assert.deepEqual(chat.tools.map(({ state }) => state), ["output-available"]);
  assert.match(chat.text, /"deleted": "42"/);
  assert.equal(chat.requests[1].body.messageId, id);
}

test("a hold and its answer", () => holdAndApprove("classic"));

test("a hold and its answer, durable", () => holdAndApprove("durable"));

test("a hold and its denial", async () => {
  const chat = new Chat(automatic);
  await chat.sendMessage({ text: prompts.DELETE });
  await approving(chat, () => ({ approved: false, reason: "keep it" }));
  await chat.valid();
  assert.deepEqual(chat.tools.map(({ state }) => state), ["output-denied"]);
  assert.match(chat.text, /keep it/);
});

test("several decisions at once", async () => {
  const chat = new Chat(automatic);
  const calls = ["1", "2"].map((id) => `@call delete_record {"id": "${id}"}`);
  await chat.sendMessage({ text: [...calls, '@call get_weather {"city": "Oslo"}'].join("\n") });
  assert.deepEqual(chat.tools.map(({ state }) => state), ["approval-requested", "approval-requested", "output-available"]);
  await approving(chat, ({ input }) => ({ approved: input.id === "1" }));
  await chat.valid();
  assert.equal(chat.requests.length, 2);
  assert.deepEqual(chat.tools.map(({ state }) => state), ["output-available", "output-denied", "output-available"]);
});

test("a decision at a time", async () => {
  const chat = new Chat();
  await chat.sendMessage({ text: ["1", "2"].map((id) => `@call delete_record {"id": "${id}"}`).join("\n") });
  const [first, second] = chat.tools.map(({ approval }) => approval.id);
  await chat.addToolApprovalResponse({ id: first, approved: true });
  await chat.sendMessage();
  await chat.valid();
  assert.deepEqual(chat.tools.map(({ state }) => state), ["output-available", "approval-requested"]);
  await chat.addToolApprovalResponse({ id: second, approved: true });
  await chat.sendMessage();
  await chat.valid();
  assert.deepEqual(chat.tools.map(({ state }) => state), ["output-available", "output-available"]);
  assert.equal(chat.messages.length, 2);
});

test("a second hold in one turn", async () => {
  const chat = new Chat(automatic);
  const ask = (id) => `@call delete_record {"id": "${id}"}\n@then\n`;
  await chat.sendMessage({ text: `${ask(1)}${ask(2)}@echo Both are gone.` });
  await approving(chat, () => ({ approved: true }));
  assert.deepEqual(chat.tools.map(({ state }) => state), ["output-available", "approval-requested"]);
  await approving(chat, () => ({ approved: true }));
  await chat.valid();
  assert.equal(chat.text, "Both are gone.");
  assert.equal(chat.messages.length, 2);
});

test("a new message while calls are held", async () => {
  const chat = new Chat();
  await chat.sendMessage({ text: prompts.DELETE });
  await chat.sendMessage({ text: "@echo Never mind." });
  await chat.valid();
  assert.equal(chat.text, "Never mind.");
});

test("history with answers in it", async () => {
  const chat = new Chat(automatic);
  await chat.sendMessage({ text: prompts.DELETE });
  await approving(chat, () => ({ approved: true }));
  const stale = chat.messages.map((message) => ({
    ...message,
    parts: message.parts.map((part) =>
      part.toolCallId ? { ...part, state: "approval-responded", output: undefined } : part,
    ),
  }));
  chat.messages = stale;
  await chat.sendMessage({ text: "@echo Go on." });
  assert.equal(chat.error, undefined);
  assert.equal(chat.text, "Go on.");
});

test("regenerating", async () => {
  const chat = new Chat();
  await chat.sendMessage({ text: "@echo Once more." });
  const { id } = chat.last;
  await chat.regenerate({ messageId: id });
  await chat.valid();
  assert.equal(chat.requests[1].body.trigger, "regenerate-message");
  assert.equal(chat.messages.length, 2);
  assert.notEqual(chat.last.id, id);
  assert.equal(chat.text, "Once more.");
});

test("resuming a stream", async () => {
  const chat = new Chat({ body: { executionMode: "durable" } });
  const sent = chat.sendMessage({ text: `@delay_ms 30\n${prompts.COUNT}` });
  await chat.speaking();
  const again = new Chat({ id: chat.id, messages: chat.messages.slice(0, 1) });
  await again.resumeStream();
  await again.valid();
  assert.equal(again.text, counted);
  await sent;
  assert.deepEqual(again.last, chat.last);
});

test("resuming a hold", async () => {
  const chat = new Chat();
  await chat.sendMessage({ text: prompts.DELETE });
  const again = new Chat({ id: chat.id, messages: chat.messages.slice(0, 1), ...automatic });
  await again.resumeStream();
  await again.valid();
  assert.deepEqual(again.tools.map(({ state }) => state), ["approval-requested"]);
  await approving(again, () => ({ approved: true }));
  await again.valid();
  assert.match(again.text, /"deleted": "42"/);
});

test("nothing to resume", async () => {
  const chat = new Chat();
  await chat.sendMessage({ text: "@echo Hello" });
  const again = new Chat({ id: chat.id, messages: chat.messages });
  await again.resumeStream();
  await again.valid();
  assert.equal(again.requests[0].answer.status, 204);
});

test("files", async () => {
  const chat = new Chat();
  await chat.sendMessage({ text: "@files", files: [image] });
  await chat.valid();
  assert.match(chat.text, /image\/png/);
});

test("a message id that was used", async () => {
  const id = crypto.randomUUID();
  const parts = [{ type: "text", text: "@echo Hello" }];
  const first = new Chat();
  await first.sendMessage({ id, role: "user", parts });
  await first.valid();
  const second = new Chat();
  await second.sendMessage({ id, role: "user", parts });
  assert.equal(second.status, "error");
  assert.equal(second.requests.length, 1);
  const problem = JSON.parse(second.error.message);
  assert.deepEqual([problem.status, problem.code], [409, "conflict"]);
  assert.equal(second.requests[0].answer.headers.get("x-should-retry"), "false");
});

test("a stream that breaks off", async () => {
  const chat = new Chat();
  await chat.sendMessage({ text: prompts.BROKEN_OFF });
  assert.equal(chat.status, "error");
  assert.ok(chat.error.message);
  assert.ok(chat.text && counted.startsWith(chat.text));
});

test("error classes", async () => {
  const refused = async (prompt, more) => {
    const chat = new Chat(more);
    await chat.sendMessage({ text: prompt });
    assert.equal(chat.status, "error");
    return JSON.parse(chat.error.message);
  };
  assert.equal((await refused(prompts.COUNT, { body: { max_tokens: 0 } })).status, 400);
  assert.equal((await refused(prompts.COUNT, { headers: { authorization: "Bearer km_wrong" } })).status, 401);
  assert.equal((await refused(prompts.LIMITED)).status, 429);
});

test("leaving a stream", async () => {
  const chat = new Chat();
  const sent = chat.sendMessage({ text: prompts.ENDLESS });
  await chat.speaking();
  await chat.stop();
  await sent;
  assert.equal(chat.status, "ready");
});

test("operations", async () => {
  const told = [];
  const chat = new Chat({ headers: { "x-emit-operations": "true" }, onData: ({ type, data }) => told.push([type, data.type]) });
  await chat.sendMessage({ text: prompts.FORECAST });
  await chat.valid();
  assert.deepEqual(told.map(([type]) => type).filter((type) => type !== "data-operation"), []);
  const kinds = told.map(([, kind]) => kind);
  assert.deepEqual(kinds.slice(0, 4), ["step-started", "tool-called", "tool-returned", "step-finished"]);
});
