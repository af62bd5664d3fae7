"""The NATS client protocol as bytes: building commands, reading what the server sends.

Pure functions and one incremental parser. It knows neither a socket nor a subscription's meaning: a complete message is
handed to the receiver of its subscription at once, everything else to one function for control lines.
"""

from collections.abc import Callable
from typing import Final

from kitemesh_contracts.errors import ContractViolation

Receiver = Callable[[bytes, bytes, bytes | None, bytes], None]
"""Takes subject, reply subject (empty when none), header block (`None` when none) and payload."""

Stray = Callable[[bytes, bytes, bytes, bytes | None, bytes], None]
"""Takes a message that has no receiver: subscription id, then as a receiver."""

LINE_MAX_BYTES: Final = 1024 * 1024
"""Longest control line; the server's INFO names every node of a cluster and is the longest by far."""

_MESSAGE: Final = ord("M")
_WITH_HEADERS: Final = ord("H")
_STATUS_PREFIX: Final = b"NATS/1.0 "
_SUBJECT_LINE: Final = b"\r\nNats-Subject: "
_SEQUENCE_LINE: Final = b"\r\nNats-Sequence: "
_PREVIOUS_LINE: Final = b"\r\nNats-Last-Sequence: "


class WireError(Exception):
    """The server sent bytes that are no NATS protocol; only a new connection helps."""


class WireParser:
    """Cut a byte stream into messages and control lines, wherever the pieces were split.

    A message that is not complete yet is kept as the pieces it came in and joined once, so a large payload is copied
    twice however many reads it takes.
    """

    def __init__(
        self,
        receivers: dict[bytes, Receiver],
        *,
        on_control: Callable[[bytes], None],
        on_stray: Stray,
        on_failure: Callable[[bytes, Exception], None],
    ) -> None:
        """Take the live table of receivers by subscription id.

        Args:
            receivers: Looked up for each message, so it may change at any time.
            on_control: Takes each control line, without its line end.
            on_stray: Takes messages of subscriptions that have no receiver.
            on_failure: Takes subject and exception of a receiver that raised; the stream goes on.

        """
        self._receivers = receivers
        self._on_control = on_control
        self._on_stray = on_stray
        self._on_failure = on_failure
        self.reset()

    def reset(self) -> None:
        """Forget an incomplete message."""
        self._pieces: list[bytes] = []
        self._have = 0
        self._need = 0

    def feed(self, data: bytes) -> None:
        """Take the next piece of the stream and hand on what it completes.

        Raises:
            WireError: The stream is not NATS protocol.

        """
        if self._pieces:
            self._pieces.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._pieces)
            self._pieces.clear()
        end = len(data)
        at = 0
        need = 0
        while at < end:
            eol = data.find(b"\r\n", at)
            if eol < 0:
                if end - at > LINE_MAX_BYTES:
                    raise WireError("a control line does not end")
                break
            kind = data[at]
            if kind in (_MESSAGE, _WITH_HEADERS):
                fields = data[at:eol].split()
                start = eol + 2
                stop = start + _size(fields)
                if stop + 2 > end:
                    need = stop + 2 - at
                    break
                self._hand_on(kind, fields, data, start, stop)
                at = stop + 2
            else:
                self._on_control(data[at:eol])
                at = eol + 2
        if at < end:
            rest = data[at:] if at else data
            self._pieces.append(rest)
            self._have = len(rest)
            self._need = need

    def _hand_on(self, kind: int, fields: list[bytes], data: bytes, start: int, stop: int) -> None:
        headers = None
        if kind == _MESSAGE:
            reply = fields[3] if len(fields) == 5 else b""  # noqa: PLR2004  MSG subject sid [reply] size
        else:
            reply = fields[3] if len(fields) == 6 else b""  # noqa: PLR2004  HMSG subject sid [reply] headers size
            cut = start + int(fields[-2])
            headers = data[start:cut]
            start = cut
        subject = fields[1]
        receiver = self._receivers.get(fields[2])
        if receiver is None:
            self._on_stray(fields[2], subject, reply, headers, data[start:stop])
            return
        try:
            receiver(subject, reply, headers, data[start:stop])
        except Exception as exc:  # noqa: BLE001  whatever one receiver does, the others must go on
            self._on_failure(subject, exc)


def _size(fields: list[bytes]) -> int:
    """Read a message's size from its control line; headers count in.

    Raises:
        WireError: The line is none that a message starts with.

    """
    size = fields[-1]
    if size.isdigit():
        if fields[0] == b"MSG" and 4 <= len(fields) <= 5:  # noqa: PLR2004  the reply is optional
            return int(size)
        if fields[0] == b"HMSG" and 5 <= len(fields) <= 6 and fields[-2].isdigit() and int(fields[-2]) <= int(size):  # noqa: PLR2004
            return int(size)
    raise WireError("a message's control line is malformed")


def check_subject(subject: str) -> None:
    """Refuse whatever could end a control line early.

    Raises:
        ContractViolation: A space, a line end or anything else outside printable ASCII.

    """
    if not (subject and subject.isascii() and subject.isprintable() and " " not in subject):
        raise ContractViolation("a subject, queue or message id has a character that may not travel")


def pub(subject: str, payload: bytes, reply: str = "") -> bytes:
    """Build a publication without headers.

    Raises:
        ContractViolation: The subject may not travel.

    """
    check_subject(subject)
    return f"PUB {subject} {reply} {len(payload)}\r\n".encode() + payload + b"\r\n"


def hpub(subject: str, payload: bytes, *, reply: str, header: str, value: str, more: str = "") -> bytes:
    """Build a publication with headers.

    Args:
        subject: Where to.
        payload: What.
        reply: Where the acknowledgement goes.
        header: Name of the header whose value is an id.
        value: The id.
        more: Further header lines, each ended by CR LF, as this program alone has written them.

    Raises:
        ContractViolation: The subject or the value may not travel.

    """
    check_subject(subject)
    check_subject(value)
    block = f"NATS/1.0\r\n{header}: {value}\r\n{more}\r\n"
    size = len(block)
    return f"HPUB {subject} {reply} {size} {size + len(payload)}\r\n{block}".encode() + payload + b"\r\n"


def subject_of(command: bytes) -> bytes:
    """Return where a publication that was built here goes."""
    return command.split(b" ", 2)[1]


def status_of(headers: bytes | None) -> int:
    """Return the status that a header block opens with, or 0."""
    if headers is None or not headers.startswith(_STATUS_PREFIX):
        return 0
    digits = headers[9:12]
    return int(digits) if digits.isdigit() else 0


def status_text(headers: bytes) -> str:
    """Return the words after the status, such as `Consumer Deleted`."""
    return headers.split(b"\r\n", 1)[0][13:].decode("ascii", "replace")


def header_of(headers: bytes, name: str) -> str | None:
    """Return a header's value, or `None`."""
    wanted = name.encode().lower()
    for line in headers.split(b"\r\n")[1:]:
        key, found, value = line.partition(b":")
        if found and key.strip().lower() == wanted:
            return value.strip().decode("utf-8", "replace")
    return None


def place_of(headers: bytes) -> tuple[str, int, int]:
    """Read where a message that was looked up stands: subject, sequence, and the sequence told before it or 0.

    The server's own lines come last, so a publisher's that look the same are not taken for them.

    Raises:
        ValueError: One is missing or no number.

    """
    at = headers.rindex(_SUBJECT_LINE) + len(_SUBJECT_LINE)
    subject_end = headers.index(b"\r\n", at)
    sequence_at = headers.index(_SEQUENCE_LINE, subject_end) + len(_SEQUENCE_LINE)
    sequence_end = headers.index(b"\r\n", sequence_at)
    previous_at = headers.index(_PREVIOUS_LINE, sequence_end) + len(_PREVIOUS_LINE)
    previous_end = headers.index(b"\r\n", previous_at)
    return (
        headers[at:subject_end].decode(),
        int(headers[sequence_at:sequence_end]),
        int(headers[previous_at:previous_end]),
    )
