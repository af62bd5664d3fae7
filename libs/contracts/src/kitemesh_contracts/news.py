"""The news that a tenant's feed tells: that something happened to an execution, or to what it waits for.

They go to the tenant's clients as they are: never content, arguments, or who decided.
"""

from typing import Final, Literal, get_args

from msgspec import Struct

from kitemesh_contracts.commands import Mode

NewsType = Literal[
    "turn.accepted",
    "turn.held",
    "turn.ended",
    "approval.requested",
    "approval.decided",
    "approval.expired",
    "approval.cancelled",
]

NEWS_TYPES: Final[tuple[NewsType, ...]] = get_args(NewsType)

MARK: Final = "feed.mark"
"""Kind of the messages that only say how far a feed goes; nobody is told of them."""


class NewsItem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something happened.

    Attributes:
        id: Derived from what happened: news that are told again have the same one.
        status: Of the execution, `queued`, `held`, `completed`, `failed` or `cancelled`; in `approval.*` of the
            approval, `open` as long as not all of it is decided.
        model: As the request named it.
        at_ms: Epoch milliseconds on the clock of whoever tells.

    """

    type: NewsType
    id: str
    execution_id: str
    status: str
    mode: Mode
    model: str
    at_ms: int
    conversation_id: str | None = None
    approval_id: str | None = None
