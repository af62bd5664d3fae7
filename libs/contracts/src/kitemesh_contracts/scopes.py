"""What an API key may be allowed to do."""

from enum import StrEnum


class Scope(StrEnum):
    """The closed set; a key's record holds their values."""

    CHAT = "chat"
    """Run turns and read one's own results."""

    APPROVE = "approve"
    """Decide held tool calls."""

    ADMIN = "admin"
    """See the cluster, and manage keys, knowledge and dead letters."""

    OPERATOR = "operator"
    """Manage every tenant: what each may do, and its keys."""
