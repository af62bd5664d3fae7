"""The one place that opens a MongoDB client, on Motor or on pymongo's own asyncio client.

What differs between the two stays here; adapters see one `Database`. It bounds every call in time, translates what
the driver raises, measures it, and tells a `Dependency` what the last real call found. It knows no collection and no
document.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, Protocol, TypeVar

from pymongo.errors import BulkWriteError, OperationFailure

from kitemesh_contracts.errors import ErrorCode, KitemeshError, Unavailable
from kitemesh_runtime.call_kinds_mongo import Marked, Marking, kind_of
from kitemesh_runtime.errors_mongo import DRIVER_ERRORS, UNENCODABLE, translate, translate_group
from kitemesh_runtime.metrics import STORE_DURATION

T = TypeVar("T")

Driver = Literal["motor", "pymongo"]

SLACK_S: Final = 0.3
"""Past the driver's own time-out a call gets this much: Motor counts from when a thread is free."""

_OBSERVE: Final = {kind: STORE_DURATION.labels(kind).observe for kind in ("read", "write", "group", "command")}


class Dependency(Protocol):
    """Is told what the last real call found."""

    def mark_up(self) -> None:
        """Note that the server answered."""

    def mark_down(self, reason: str, *, began_s: float | None = None) -> None:
        """Note that it did not answer a call begun at that monotonic time."""


class Database:
    """A database as the adapters use it: collections with the driver's own methods, called through `run`."""

    def __init__(self, raw: Any, driver: Driver, dependency: Dependency | None, timeout_s: float) -> None:
        self._raw = raw
        self._driver = driver
        self._dependency = dependency
        self._timeout_s = timeout_s + SLACK_S

    @property
    def name(self) -> str:
        """Its name on the server."""
        return str(self._raw.name)

    def collection(self, name: str) -> Any:
        """Return a collection; both drivers agree on every method that an adapter uses."""
        return Marking(self._raw[name])

    def bucket(self, name: str) -> Any:
        """Return a GridFS bucket."""
        if self._driver == "motor":
            from motor.motor_asyncio import AsyncIOMotorGridFSBucket  # noqa: PLC0415  see `_open`

            return Marking(AsyncIOMotorGridFSBucket(self._raw, bucket_name=name))
        from gridfs.asynchronous import AsyncGridFSBucket  # noqa: PLC0415  only this driver needs it

        return Marking(AsyncGridFSBucket(self._raw, bucket_name=name))

    async def run(self, call: Awaitable[T]) -> T:
        """Await one driver call.

        Raises:
            Unavailable: The server did not answer, or not in time; a write may or may not have happened.
            Conflict: A unique key is taken (`store.duplicate`).
            BadRequest: The data cannot be stored.
            Bug: The server refused for a reason that the code rules out.

        """
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                result = await call
        except DRIVER_ERRORS as exc:
            raise self._translated(exc, began_s) from exc
        finally:
            _OBSERVE[kind_of(call)](time.monotonic() - began_s)
        self._mark_up()
        return result

    async def run_slow(self, call: Awaitable[T]) -> T:
        """Await a read that may be slow by itself: that it is not answered in time says nothing of the server.

        Raises:
            Unavailable: There was no answer in time.

        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await call
        except DRIVER_ERRORS as exc:
            raise translate(exc) from exc

    async def write_group(self, collection: str, operations: Sequence[Any]) -> Mapping[int, KitemeshError]:
        """Write operations in one unordered group and return the errors of those that failed, by index.

        An operation that cannot be encoded fails alone.

        Raises:
            Unavailable: The whole group failed, or may have.

        """
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._raw[collection].bulk_write(operations, ordered=False)
        except BulkWriteError as exc:
            errors = translate_group(exc.details, len(operations))
            if any(isinstance(error, Unavailable) for error in errors.values()):
                self._mark_down(exc, began_s)
            else:
                self._mark_up()
            return errors
        except UNENCODABLE as exc:
            if len(operations) == 1:
                return {0: translate(exc)}
            return await self._write_singly(collection, operations)
        except DRIVER_ERRORS as exc:
            raise self._translated(exc, began_s) from exc
        finally:
            _OBSERVE["group"](time.monotonic() - began_s)
        self._mark_up()
        return {}

    async def command(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run a database command."""
        answer: Mapping[str, Any] = await self.run(Marked(self._raw.command(command), "command"))
        return answer

    async def aggregate(self, collection: str, pipeline: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Read all that comes of a pipeline, in however many batches; called through `run`, as the driver's methods."""
        asked = self._raw[collection].aggregate(pipeline)
        cursor = asked if self._driver == "motor" else await asked
        found: list[Any] = await cursor.to_list(None)
        return found

    async def _write_singly(self, collection: str, operations: Sequence[Any]) -> Mapping[int, KitemeshError]:
        errors: dict[int, KitemeshError] = {}
        for index, operation in enumerate(operations):
            found = await self.write_group(collection, [operation])
            if found:
                errors[index] = found[0]
        return errors

    def _translated(self, exc: Exception, began_s: float) -> KitemeshError:
        error = translate(exc)
        if isinstance(error, Unavailable):
            self._mark_down(exc, began_s)
        elif isinstance(exc, OperationFailure):
            # It refused, so it answered; what was never sent tells nothing.
            self._mark_up()
        return error

    def _mark_up(self) -> None:
        if self._dependency is not None:
            self._dependency.mark_up()

    def _mark_down(self, exc: Exception, began_s: float) -> None:
        if self._dependency is not None:
            self._dependency.mark_down(type(exc).__name__, began_s=began_s)


async def ping(database: Database) -> None:
    """Ask the server for a sign of life.

    Raises:
        Unavailable: There is none.

    """
    await database.command({"ping": 1})


@asynccontextmanager
async def open_database(
    url: str,
    *,
    name: str,
    driver: Driver = "motor",
    dependency: Dependency | None = None,
    timeout_s: float = 2.0,
    select_timeout_s: float = 1.5,
    max_connections: int = 8,
) -> AsyncIterator[Database]:
    """Open a client without connecting yet, and close it at the end.

    Args:
        url: `mongodb://…`; what is set here wins over the URL's options.
        name: The database.
        driver: Motor by default.
        dependency: Told what each call found.
        timeout_s: For one whole call, retries of the driver included.
        select_timeout_s: For finding a server that takes writes.
        max_connections: Also the number of Motor's threads, unless `MOTOR_MAX_WORKERS` is set.

    Raises:
        Unavailable: The URL cannot be used.

    """
    options: dict[str, Any] = {
        "appname": "kitemesh",
        "w": "majority",
        "journal": True,
        "tz_aware": True,
        "timeoutMS": int(timeout_s * 1000),
        "serverSelectionTimeoutMS": int(select_timeout_s * 1000),
        "connectTimeoutMS": int(select_timeout_s * 1000),
        "maxPoolSize": max_connections,
        # The driver leaves it out by itself where there is no replica set.
        "retryWrites": True,
        "retryReads": True,
    }
    try:
        client = _open(url, driver, options, max_connections)
    except (*DRIVER_ERRORS, ValueError, OSError) as exc:
        # Not in the driver's words, in which options of the URL may stand.
        raise Unavailable(ErrorCode.STORE_DOWN, f"The store's URL cannot be used: {_unusable(exc)}") from exc
    try:
        yield Database(client[name], driver, dependency, timeout_s)
    finally:
        closing = client.close()
        if closing is not None:
            await closing


def _unusable(exc: Exception) -> str:
    if isinstance(exc, OSError) and exc.strerror:
        return f"{exc.strerror}: {exc.filename}" if exc.filename else exc.strerror
    return type(exc).__name__


def _open(url: str, driver: Driver, options: Mapping[str, Any], threads: int) -> Any:
    if driver == "motor":
        os.environ.setdefault("MOTOR_MAX_WORKERS", str(threads))
        from motor.motor_asyncio import AsyncIOMotorClient  # noqa: PLC0415  it reads the variable when imported

        return AsyncIOMotorClient(url, **options)
    from pymongo import AsyncMongoClient  # noqa: PLC0415  only the chosen driver is loaded

    return AsyncMongoClient(url, **options)
