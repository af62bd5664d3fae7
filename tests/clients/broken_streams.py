"""Reads streams that have to break off: what came until then, and that it did not seem complete."""

from collections.abc import AsyncIterable, Iterable
from typing import TypeVar

from clients.prompts import COUNTED

T = TypeVar("T")


def read_until(error: type[Exception], stream: Iterable[T]) -> tuple[list[T], Exception]:
    """Return what a stream says until it raises this error, and the error."""
    found: list[T] = []
    try:
        # What was appended before an error stays.
        found.extend(stream)
    except error as exc:
        return found, exc
    raise AssertionError(f"it ended as if it were complete: {found}")


async def read_async_until(error: type[Exception], stream: AsyncIterable[T]) -> tuple[list[T], Exception]:
    """Do the same with a stream that is waited for."""
    found: list[T] = []
    try:
        async for each in stream:
            found.append(each)  # noqa: PERF401  a comprehension would lose what came before the error
    except error as exc:
        return found, exc
    raise AssertionError(f"it ended as if it were complete: {found}")


def check_beginning(pieces: Iterable[str | None]) -> None:
    """See that there was a beginning of the answer, and nothing but that."""
    said = "".join(piece or "" for piece in pieces)
    assert said
    assert COUNTED.startswith(said)
    assert said != COUNTED
