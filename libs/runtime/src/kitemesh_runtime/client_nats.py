"""What is said and heard on a connection: a synchronous, bounded send path and synchronous receivers.

A command is bytes made by `wire_nats`; it is queued and written once for each turn of the loop. It does not know
JetStream, and never waits.
"""

from typing import Final

from nats.aio.client import Client

from kitemesh_contracts.errors import ContractViolation, ErrorCode, Unavailable
from kitemesh_runtime.connection_nats import GuardedConnection
from kitemesh_runtime.wire_nats import Receiver, check_subject

CONNECT_TIMEOUT_S: Final = 2.0
RECONNECT_WAIT_S: Final = 0.25
PING_INTERVAL_S: Final = 2.5
PINGS_OUTSTANDING_MAX: Final = 2


class GuardedClient(GuardedConnection):
    """Publications go through `send_now` or `offer`, subscriptions through `listen`.

    What the library itself subscribes still works, at the cost of a task for each message.
    """

    async def open(
        self,
        servers: list[str],
        *,
        name: str,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        reconnect_wait_s: float = RECONNECT_WAIT_S,
        ping_interval_s: float = PING_INTERVAL_S,
    ) -> None:
        """Connect, however long it takes; the caller bounds it."""
        await self.connect(
            servers,
            error_cb=self._report_connecting,
            name=name,
            user=user,
            password=password,
            token=token,
            connect_timeout=CONNECT_TIMEOUT_S,
            reconnect_time_wait=reconnect_wait_s,
            max_reconnect_attempts=-1,
            ping_interval=ping_interval_s,
            max_outstanding_pings=PINGS_OUTSTANDING_MAX,
        )

    def offer(self, command: bytes) -> bool:
        """Queue a ready-made command for this turn of the loop; `False` when disconnected or too much is unsent."""
        if self._status != Client.CONNECTED:
            return False
        if not self._pending:
            self._kick()
        size = self._pending_data_size + len(command)
        if size > self._room:
            return False
        self._pending.append(command)
        self._pending_data_size = size
        return True

    def send_now(self, command: bytes) -> None:
        """Queue a ready-made command.

        Raises:
            ContractViolation: It is larger than the server takes, which would cost the connection.
            Unavailable: Disconnected, or too much is unsent.

        """
        self.check_size(command)
        if not self.offer(command):
            raise Unavailable(ErrorCode.BUS_DOWN, "The message bus does not take messages at the moment.")

    def check_size(self, command: bytes) -> None:
        """Refuse a command that the server would answer by ending the connection.

        Raises:
            ContractViolation: It is larger than the server takes.

        """
        if len(command) > self._max_payload:
            raise ContractViolation(f"{len(command)} bytes are more than the bus takes at once")

    def listen(self, subject: str, receiver: Receiver, *, queue: str = "", renew: bool = True) -> bytes:
        """Subscribe and return the subscription's id.

        Args:
            subject: May hold wildcards.
            receiver: Called from the socket's callback for each message; it must not block.
            queue: Share the messages with the other members of this group.
            renew: Subscribe again after a reconnect.

        Raises:
            ContractViolation: Subject or queue may not travel.

        """
        check_subject(subject)
        if queue:
            check_subject(queue)
        self._sid += 1
        sid = b"%d" % self._sid
        command = f"SUB {subject} {queue} {self._sid}\r\n".encode()
        self._receivers[sid] = receiver
        if renew:
            self._interests[sid] = command
        self._queue(command)
        return sid

    def mute(self, sid: bytes) -> None:
        """Tell the server to send no more; what is under way still reaches the receiver."""
        self._interests.pop(sid, None)
        self._queue(b"UNSUB %b\r\n" % sid)

    def forget(self, sid: bytes) -> None:
        """Drop a muted subscription's receiver."""
        self._receivers.pop(sid, None)
