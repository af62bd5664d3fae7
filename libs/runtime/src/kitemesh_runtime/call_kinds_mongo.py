"""What kind a call of the driver is, for whoever measures it: a collection's own methods say whether they write.

A future of the driver's tells nothing of what it was made by, and asking each adapter to say it would make it possible
to say it wrongly. It knows no collection, and does not measure.
"""

from collections.abc import Awaitable, Generator
from typing import Any, Final, Literal, TypeVar

T = TypeVar("T")

Kind = Literal["read", "write", "command"]

WRITING: Final = frozenset(
    {
        "insert_one",
        "insert_many",
        "update_one",
        "update_many",
        "replace_one",
        "delete_one",
        "delete_many",
        "find_one_and_update",
        "find_one_and_replace",
        "find_one_and_delete",
        "create_index",
        "create_indexes",
        "drop_index",
        "drop_indexes",
        "upload_from_stream",
        "upload_from_stream_with_id",
    },
)
"""Methods of collections and buckets that write, in both drivers."""


class Marked(Awaitable[T]):
    """A call under way that says of which kind it is."""

    __slots__ = ("_call", "kind")

    def __init__(self, call: Awaitable[T], kind: Kind) -> None:
        self._call = call
        self.kind: Final[Kind] = kind

    def __await__(self) -> Generator[Any, None, T]:
        return self._call.__await__()


class Marking:
    """A collection or a bucket of the driver, whose writing methods return what says so."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        """Return what the driver has under that name, and have it at hand from then on."""
        found = getattr(self._raw, name)
        if name in WRITING:
            driven = found

            def found(*given: Any, **named: Any) -> Marked[Any]:
                return Marked(driven(*given, **named), "write")

        # Asked for with every call, it would cost each of them as much as being measured does.
        setattr(self, name, found)
        return found


def kind_of(call: object) -> Kind:
    """Return the kind of a call; what is not marked reads."""
    return call.kind if type(call) is Marked else "read"
