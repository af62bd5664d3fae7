"""The ports of the executor: a tool that can be run once, and a kind that makes tools of definitions."""

from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from kitemesh_contracts.errors import ErrorCode, ToolFailed
from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.ledger import Effect


class Call(NamedTuple):
    """What to run.

    Attributes:
        id: The tool execution id; the idempotency key of a `keyed` call.
        arguments: Canonical JSON text of an object that satisfies the tool's schema; its content is still hostile.
        timeout_s: The tool gives up after it; whoever calls also enforces it.

    """

    id: str
    turn: str
    tenant: str
    arguments: str
    effect: Effect
    timeout_s: float


class CallFailed(ToolFailed):
    """A call has no result. The message is for the model and the client: no address, no secret, no internal text.

    Attributes:
        sent: The tool may have had its effect.
        again: The same call may succeed later.
        answered: The tool said itself what became of the call, so that nothing is uncertain about it.

    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        sent: bool,
        again: bool = False,
        answered: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(code, message, retry_after_s=retry_after_s)
        self.sent = sent
        self.again = again
        self.answered = answered


class Tool(Protocol):
    """Something a model may ask to have run."""

    async def run(self, call: Call) -> str:
        """Run once and return what the model will see, at most the definition's `max_result_bytes`.

        Being cancelled stops it at once. It never repeats anything by itself, and passes the failpoint
        `tool.after_send` when the request has left and no answer was read.

        Raises:
            CallFailed: There is no result.

        """


class Kind(AbstractAsyncContextManager["Kind"], Protocol):
    """Makes the tools of one kind; open while the service runs, it owns their connections and processes."""

    def tool(self, name: str, catalog: Catalog) -> Tool:
        """Return the tool of that name in `catalog.tools`, whose definition is of this kind.

        Cheap, and called again when the catalog changed; connections are made when the tool is first run.
        """
