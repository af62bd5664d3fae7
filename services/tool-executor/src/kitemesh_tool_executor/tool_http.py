"""Tools that are one HTTP request: templated URL, headers of the definition, JSON out, text in."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import structlog
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDict

from kitemesh_contracts.errors import ErrorCode
from kitemesh_contracts.headers import IDEMPOTENCY_KEY
from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.catalog_tools import HttpTool
from kitemesh_runtime.schemas import SchemaRefused, problems
from kitemesh_tool_executor.credentials import fill_headers, not_configured
from kitemesh_tool_executor.egress import Egress
from kitemesh_tool_executor.http_answer import is_success, read_text, refusal
from kitemesh_tool_executor.http_exchange import exchange
from kitemesh_tool_executor.http_request import BadTemplate, Template, Unfit
from kitemesh_tool_executor.tool import Call, CallFailed, Tool

CALL_ID: Final = "x-kitemesh-execution-id"
"""Header that names the call; also the value of the Idempotency-Key."""

log: Final = structlog.get_logger()


class HttpKind(AbstractAsyncContextManager["HttpKind"]):
    """Makes tools of HTTP definitions and owns their connections.

    Args:
        resolver: Resolves names; the system's resolver when absent.

    """

    def __init__(self, resolver: AbstractResolver | None = None) -> None:
        self._egress: Final = Egress(resolver)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._egress.__aexit__(kind, error, trace)

    def tool(self, name: str, catalog: Catalog) -> Tool:
        """Return the tool of that name."""
        definition = catalog.tools[name]
        if not isinstance(definition, HttpTool):
            raise TypeError(f"tools.{name} is of kind {definition.kind}")
        return HttpRequestTool(name, definition, self._egress)


class HttpRequestTool:
    """One definition."""

    def __init__(self, name: str, definition: HttpTool, egress: Egress) -> None:
        self._place: Final = f"tools.{name}"
        self._definition: Final = definition
        self._egress: Final = egress
        self._template: Final = read_template(self._place, definition.url)

    async def run(self, call: Call) -> str:
        """Send the request once."""
        definition, template = self._definition, self._template
        if template is None:
            raise not_configured()
        try:
            request = template.render(definition.method, definition.query, msgspec.json.decode(call.arguments))
        except Unfit as exc:
            raise CallFailed(ErrorCode.TOOL_ARGUMENTS, str(exc), sent=False) from exc
        headers = CIMultiDict(fill_headers(f"{self._place}.headers", definition.headers))
        headers[CALL_ID] = call.id
        if call.effect != "safe":
            headers[IDEMPOTENCY_KEY] = call.id
        if request.body is not None:
            headers.setdefault("Content-Type", "application/json")
        answer = await exchange(
            self._egress.session(definition.allow_networks, plain=template.plain),
            definition.method,
            request.url,
            headers=headers,
            body=request.body,
            timeout_s=call.timeout_s,
            max_bytes=definition.max_result_bytes,
        )
        if not is_success(answer.status):
            raise refusal(answer.status, answer.headers, answer.body)
        text = read_text(answer.headers, answer.body)
        if text is None:
            raise CallFailed(ErrorCode.TOOL_FAILED, "The tool's answer is not text", sent=True, answered=True)
        if definition.result_schema is not None and not _fits(definition.result_schema, text):
            unfit = "The tool's answer does not fit its schema"
            raise CallFailed(ErrorCode.TOOL_FAILED, unfit, sent=True, answered=True)
        return text


def read_template(place: str, url: str) -> Template | None:
    """Take a definition's URL apart; one that cannot be used is told to the operator, and is `None`."""
    try:
        return Template(url)
    except BadTemplate as exc:
        reason = str(exc)
    log.error("tool.url_refused", place=place, reason=reason)
    return None


def _fits(schema: Mapping[str, Any], text: str) -> bool:
    try:
        return not problems(schema, msgspec.json.decode(text))
    except (msgspec.DecodeError, RecursionError, SchemaRefused):
        return False
