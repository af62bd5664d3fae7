"""How a point in time is written for people and clients. Pure; it reads no clock."""

from datetime import UTC, datetime


def iso(epoch_s: float) -> str:
    """Return epoch seconds as ISO 8601 in UTC, to the millisecond, with a `Z`."""
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
