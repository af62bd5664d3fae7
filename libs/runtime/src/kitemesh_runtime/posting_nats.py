"""Messages that a stream is to store while nobody waits: kept until acknowledged, sent again until then, or given up.

A message is one entry in a table that is bounded in number and bytes; all acknowledgements arrive on one inbox and one
timer serves all repeats. What cannot go out yet waits its turn, so first sends keep their order. It knows no subjects
but its own inbox, and not what becomes of a message that was given up.
"""

import asyncio
import itertools
import secrets
from collections import deque
from typing import Final

import msgspec
import structlog

from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_runtime.bus import POST_S
from kitemesh_runtime.calls_nats import decode_ack
from kitemesh_runtime.client_nats import GuardedClient
from kitemesh_runtime.metrics import POSTS_GIVEN_UP
from kitemesh_runtime.wire_nats import pub, subject_of

POSTS_MAX: Final = 65_536
POSTS_MAX_BYTES: Final = 32 * 1024 * 1024
REPEAT_S: Final = 1.0
"""How long an acknowledgement may take before the message is sent again."""
TICK_S: Final = 0.5
SLICE_BYTES: Final = 1024 * 1024
"""What is sent again at once: the rest of the room is for what others say meanwhile."""
PAUSE_S: Final = 0.02

log = structlog.get_logger()


class _Post:
    """A message under way."""

    __slots__ = ("command", "due", "until")

    def __init__(self, command: bytes, due: float, until: float) -> None:
        self.command = command
        self.due = due
        self.until = until


class Posting:
    """The table of one connection."""

    def __init__(self, client: GuardedClient, inbox_prefix: str) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._inbox = f"{inbox_prefix}.{secrets.token_hex(8)}."
        self._cut = len(self._inbox)
        self._numbers = itertools.count(1)
        self._posts: dict[bytes, _Post] = {}
        self._held_bytes = 0
        self._behind: deque[bytes] = deque()
        self._waits: dict[asyncio.Future[bool], set[bytes]] = {}
        self._ticking = False
        self._catching_up = False
        self._closed = False
        self._listening = False
        client.on_regained(self._regained)
        client.on_denied(self._denied)

    @property
    def under_way(self) -> int:
        """How many messages are not acknowledged yet."""
        return len(self._posts)

    @property
    def held_bytes(self) -> int:
        """What they take."""
        return self._held_bytes

    def post(self, subject: str, payload: bytes) -> None:
        """Send a message at once if the connection takes it, and keep it until it is acknowledged.

        Raises:
            Unavailable: Too much waits already, or the bus is closed.
            ContractViolation: It is larger than the server takes, or the subject may not travel.

        """
        token = b"%x" % next(self._numbers)
        command = pub(subject, payload, self._inbox + token.decode())
        self._client.check_size(command)
        held_bytes = self._held_bytes + len(command)
        if held_bytes > POSTS_MAX_BYTES or len(self._posts) >= POSTS_MAX or self._closed:
            raise Unavailable(ErrorCode.BUS_DOWN, "Too much waits for the message bus already.")
        if not self._listening:
            self._listening = True
            self._client.listen(self._inbox + "*", self._receive)
        now = self._loop.time()
        self._posts[token] = _Post(command, now + REPEAT_S, now + POST_S)
        self._held_bytes = held_bytes
        if self._behind or not self._client.offer(command):
            self._behind.append(token)
            self._catch_up_later()
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(TICK_S, self._tick)

    async def posted(self, *, timeout_s: float) -> bool:
        """Wait until all that was posted before is acknowledged or given up; tell whether it is."""
        if not self._posts:
            return not self._closed
        done: asyncio.Future[bool] = self._loop.create_future()
        self._waits[done] = set(self._posts)
        try:
            async with asyncio.timeout(timeout_s):
                return await done
        except TimeoutError:
            return False
        finally:
            del self._waits[done]

    def close(self) -> None:
        """Drop whatever is not acknowledged."""
        if self._posts:
            log.warning("posts.dropped", messages=len(self._posts))
        self._closed = True
        self._posts.clear()
        self._behind.clear()
        self._held_bytes = 0
        for done in self._waits:
            if not done.done():
                done.set_result(False)

    # Acknowledgements

    def _receive(self, subject: bytes, _reply: bytes, block: bytes | None, payload: bytes) -> None:
        """Let go of what is stored; a refusal changes nothing: the message is sent again when it is due."""
        if block is not None:
            return
        try:
            ack = decode_ack(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        if ack.error is None and ack.seq:
            self._let_go(subject[self._cut :])

    def _let_go(self, token: bytes) -> None:
        post = self._posts.pop(token, None)
        if post is None:
            return
        self._held_bytes -= len(post.command)
        for done, left in self._waits.items():
            left.discard(token)
            if not left and not done.done():
                done.set_result(True)

    # Repeats

    def _tick(self) -> None:
        now = self._loop.time()
        self._give_up(now)
        if not self._posts:
            self._ticking = False
            return
        if not self._behind:
            self._repeat(now)
        self._loop.call_later(TICK_S, self._tick)

    def _give_up(self, now: float) -> None:
        # The table is in the order of posting, so those out of time are its first.
        old = [token for token, _ in itertools.takewhile(lambda item: item[1].until <= now, self._posts.items())]
        if not old:
            return
        for token in old:
            self._let_go(token)
        POSTS_GIVEN_UP.inc(len(old))
        log.warning("posts.given_up", messages=len(old))

    def _denied(self, subject: bytes) -> None:
        """Give up what may not be said: to say it again would only be refused again."""
        refused = [token for token, post in self._posts.items() if subject_of(post.command) == subject]
        for token in refused:
            self._let_go(token)
        POSTS_GIVEN_UP.inc(len(refused))

    def _repeat(self, now: float) -> None:
        room = SLICE_BYTES
        for post in self._posts.values():
            if post.due <= now:
                if room <= 0 or not self._client.offer(post.command):
                    return
                room -= len(post.command)
                post.due = now + REPEAT_S

    def _regained(self) -> None:
        """Send everything again, in order: which acknowledgements were lost with the old connection is not known."""
        self._behind = deque(self._posts)
        if not self._catching_up:
            self._catch_up()

    def _catch_up_later(self) -> None:
        # A new connection begins by itself.
        if not self._catching_up and self._client.is_connected:
            self._catching_up = True
            self._loop.call_later(PAUSE_S, self._catch_up)

    def _catch_up(self) -> None:
        """Send a slice of what is behind."""
        self._catching_up = False
        room = SLICE_BYTES
        due = self._loop.time() + REPEAT_S
        while self._behind and room > 0:
            post = self._posts.get(self._behind[0])
            if post is not None:
                if not self._client.offer(post.command):
                    break
                room -= len(post.command)
                post.due = due
            self._behind.popleft()
        if self._behind:
            self._catch_up_later()
