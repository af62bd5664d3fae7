"""One job in this process's hands: what is known of its calls, and how it is stopped.

It outlives the handler's runs over the same delivery, so that nothing is run twice because something else failed.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal, NamedTuple

from kitemesh_contracts.commands import RunCalls
from kitemesh_contracts.content import CallResult
from kitemesh_contracts.events import CallsReturned
from kitemesh_tool_executor.registry import Entry

Then = Literal["finish", "give_up", "leave"]


class Answer(NamedTuple):
    """What a dispatched call came to, and what becomes of its row.

    Attributes:
        then: `give_up` makes its outcome unknown, `leave` keeps it dispatched, to be run again by another delivery.

    """

    result: CallResult
    then: Then


class Work:
    """The job.

    Attributes:
        by: Names this delivery in the ledger.
        repeated: An earlier delivery or attempt may have run calls of it.
        queued_s: How long it had waited when it was taken; see `queueing`.
        began_s: When it was taken, monotonic.
        results: Of the calls that are over, by execution id.
        asked: Calls whose dispatch was tried, by execution id.
        begun: The tools that were asked to run a call with an effect, by execution id.
        answers: What those tools answered, while the ledger has not got it.
        dispatched: The ledger has a call with an effect as this delivery's.
        reason: Why it is to stop; `None` unless it is.
        event: What is to be published, once every call is over.
        waits: How often it waited for the store.
        crashes: Unexpected errors so far.
        lock: Held while a delivery of it is handled; another one waits.

    """

    def __init__(
        self, job: RunCalls, *, by: str, repeated: bool, reason: str | None, queued_s: float, began_s: float
    ) -> None:
        self.job: Final = job
        self.by: Final = by
        self.repeated: Final = repeated
        self.reason = reason
        self.queued_s: Final = queued_s
        self.began_s: Final = began_s
        self.results: dict[str, CallResult] = {}
        self.asked: set[str] = set()
        self.begun: dict[str, Entry] = {}
        self.answers: dict[str, Answer] = {}
        self.dispatched = False
        self.event: CallsReturned | None = None
        self.waits = 0
        self.crashes = 0
        self.lock: Final = asyncio.Lock()
        self._scopes: set[asyncio.Timeout] = set()

    def stop(self, reason: str) -> None:
        """End its `safe` calls and begin no other; a call that was dispatched has its time to end."""
        if self.reason is None and self.event is None:
            self.reason = reason
            now_s = asyncio.get_running_loop().time()
            for scope in self._scopes:
                if not scope.expired():
                    scope.reschedule(now_s)

    @contextmanager
    def stoppable(self, scope: asyncio.Timeout) -> Iterator[None]:
        """Let `stop` end the scope."""
        self._scopes.add(scope)
        try:
            yield
        finally:
            self._scopes.discard(scope)
