"""Webhooks as tools: a call's arguments, signed, by POST.

Which event is told to whom, and when it is tried again, is not known here: a webhook is one more `keyed` tool.
"""

import hashlib
import hmac
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final, Self

import structlog
from aiohttp.abc import AbstractResolver

from kitemesh_contracts import canonical
from kitemesh_contracts.codec import encode
from kitemesh_contracts.errors import ErrorCode
from kitemesh_contracts.headers import IDEMPOTENCY_KEY
from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.catalog_tool_references import RESERVED
from kitemesh_runtime.catalog_tools import Webhook
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.ledger import Effect
from kitemesh_tool_executor.credentials import not_configured
from kitemesh_tool_executor.egress import Egress
from kitemesh_tool_executor.http_answer import is_success, refusal
from kitemesh_tool_executor.http_exchange import exchange
from kitemesh_tool_executor.tool import Call, CallFailed, Tool
from kitemesh_tool_executor.tool_http import CALL_ID, read_template

SIGNATURE: Final = "x-kitemesh-signature"
TIMESTAMP: Final = "x-kitemesh-timestamp"

_GONE: Final = 410

log: Final = structlog.get_logger()


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """Return the value of the signature header.

    Args:
        secret: The webhook's.
        timestamp: Epoch seconds, as in its own header; signed too, so that an old message cannot pass for a new one.
        body: As it is sent.

    """
    digest = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256)
    return f"sha256={digest.hexdigest()}"


class WebhookDefinition:
    """What the registry asks of every definition, of a webhook."""

    kind: Final = "webhook"
    description: Final = ""
    sentence: Final = None
    secret_arguments: Final = ()
    max_result_bytes: Final = 1

    def __init__(self, webhook: Webhook) -> None:
        self.webhook: Final = webhook
        self.parameters: Final[dict[str, Any]] = {"type": "object"}
        self.pool: Final = webhook.pool
        self.timeout_s: Final = webhook.timeout_s

    def effects(self) -> Effect:
        """Say how often it may run."""
        return "keyed"

    def version(self) -> str:
        """Return the SHA-256 of what decides what a call does."""
        content = self.webhook.model_dump(mode="json", exclude={"pool", "events", "tenants"})
        return canonical.sha256(canonical.canonical(encode(content).decode()))


def webhook_definition(webhook: Webhook) -> WebhookDefinition:
    """Return the definition that a webhook stands for."""
    return WebhookDefinition(webhook)


class WebhookKind(AbstractAsyncContextManager["WebhookKind"]):
    """Makes tools of webhooks and owns their connections.

    Args:
        clock: Its time is in the signature.
        resolver: Resolves names; the system's resolver when absent.

    """

    def __init__(self, clock: Clock, resolver: AbstractResolver | None = None) -> None:
        self._clock: Final = clock
        self._egress: Final = Egress(resolver)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._egress.__aexit__(kind, error, trace)

    def tool(self, name: str, catalog: Catalog) -> Tool:
        """Return the tool `webhook_<name>`, of that name in `catalog.webhooks`."""
        webhook = name.removeprefix(RESERVED)
        return WebhookTool(webhook, catalog.webhooks[webhook], self._egress, self._clock)


class WebhookTool:
    """One webhook."""

    def __init__(self, name: str, webhook: Webhook, egress: Egress, clock: Clock) -> None:
        self._place: Final = f"webhooks.{name}"
        self._webhook: Final = webhook
        self._egress: Final = egress
        self._clock: Final = clock
        self._template: Final = read_template(self._place, webhook.url)

    async def run(self, call: Call) -> str:
        """Tell once; any 2xx is success, and there is no text."""
        webhook, template = self._webhook, self._template
        if template is None:
            raise not_configured()
        secret = webhook.secret.read()
        if secret is None:
            log.error("tool.secret_missing", place=f"{self._place}.secret")
            raise CallFailed(ErrorCode.TOOL_FAILED, "The tool is not configured", sent=False, again=True)
        body = call.arguments.encode()
        timestamp = str(self._clock.now_ms() // 1000)
        answer = await exchange(
            self._egress.session(webhook.allow_networks, plain=template.plain),
            "POST",
            template.render("POST", (), {}).url,
            headers={
                "Content-Type": "application/json",
                IDEMPOTENCY_KEY: call.id,
                CALL_ID: call.id,
                TIMESTAMP: timestamp,
                SIGNATURE: sign(secret, timestamp, body),
            },
            body=body,
            timeout_s=call.timeout_s,
            max_bytes=None,
        )
        if is_success(answer.status):
            return ""
        failed = refusal(answer.status, answer.headers, b"")
        # A receiver that is wrong now may be right tomorrow, unless it says that it has gone for good.
        again = answer.status != _GONE
        raise CallFailed(failed.code, failed.message, sent=True, again=again, retry_after_s=failed.retry_after_s)
