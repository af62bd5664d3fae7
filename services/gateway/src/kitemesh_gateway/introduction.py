"""What somebody who has only the address must know: the words at the top of `/openapi.json` and `/docs`.

Paragraphs, parted by blank lines; one that begins with four spaces is to be copied as it is.
"""

from typing import Final

INTRODUCTION: Final = r"""
Chat turns over an OpenAI-compatible API and four others, run by a cluster and kept as conversations.

**Base URL**: this server's address and `/v1`, such as `http://localhost:8002/v1`; that is also what an OpenAI client
takes as its base URL.

**Credential**: `Authorization: Bearer km_…`, the only place where one is read. `kitemesh keys create --tenant T` makes
a key. An installation may answer requests without a credential on behalf of one tenant, as the one-machine start-up
does; a credential that is not valid is refused everywhere.

    curl http://localhost:8002/v1/chat/completions \
      -H "Authorization: Bearer $KEY" \
      -H "Content-Type: application/json" \
      -d '{"model": "MODEL", "messages": [{"role": "user", "content": "Hello"}]}'

`MODEL` is an id from `GET /v1/models`. The answer names its conversation in `kitemesh.conversation_id`; sent back as
`metadata.conversation_id` it continues there.

**Fields** that are not listed here are ignored, misspelt ones too. One that is listed is honoured or refused, never
dropped, and everything that is wrong with a request is told at once.

**Tools** of the agent run here. Those of the request are the caller's: their calls are returned as `tool_calls`, and
their results come back as `tool` messages. Calls that wait for a person are returned as `tool_calls` too, beside
`kitemesh.approval_id`: they are not to be run but to be decided, with `POST /v1/chat/resume` or
`POST /v1/approvals/{id}/decide`, until `kitemesh.expires_at`.

**Durable turns**, asked for with `metadata.mode: "durable"`, by an agent or with an `Idempotency-Key`, are stored
before they are answered: they survive their client and every process here. A stream that broke off is gone on with by
the same request with the header `Last-Event-ID`, which holds the last `id` that was received. A request that may have
been lost is sent again with the same `Idempotency-Key`: it runs once.

**Without waiting**: `POST /v1/executions` begins a turn, `GET /v1/executions/{id}` shows it, and
`GET /v1/executions/{id}/stream` tells it. `GET /v1/events` tells what happens to all of them.

**Files** come in a message: images as `image_url`, images, PDFs and texts as `file` with their bytes. They are stored
once and belong to their conversation. An address must be https and name a public host; only the model's provider reads
it. What the chosen model cannot do is refused by the field that asks for it. Several choices and `logprobs` are for
classic turns without tools that run here. Sound and ids of stored files are refused with `request.unsupported`.

**Other clients**: `POST /run/api/chat` speaks the UI message stream of the AI SDK, `POST /run/v1/chat/completions` is
OpenAI's with conversations and messages whose ids are the client's own, `POST /api/kernel2/chat` knows roles and
searches the knowledge base, and `POST /api/agents/{id}/chat` keeps a numbered history with one agent. Each refuses in
the form that its own clients read; all run the same turns.

**Streams** are described event by event, as objects of their fields: `data` is text, and `contentSchema` says of which
JSON.
""".strip()
