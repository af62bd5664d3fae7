"""Builds a message of a UI message stream as the AI SDK does, and is as strict about what may come when."""

import json
from typing import Any

KNOWN = frozenset(
    {
        "text-start",
        "text-delta",
        "text-end",
        "reasoning-start",
        "reasoning-delta",
        "reasoning-end",
        "tool-input-start",
        "tool-input-delta",
        "tool-input-available",
        "tool-input-error",
        "tool-approval-request",
        "tool-output-available",
        "tool-output-denied",
        "tool-output-error",
        "start",
        "start-step",
        "finish-step",
        "finish",
        "error",
        "data-operation",
    }
)
FINISHES = frozenset({"stop", "length", "content-filter", "tool-calls", "error", "other"})


def events_of(data: bytes) -> list[dict[str, Any]]:
    """Return the events of a stream, `[DONE]` as one of the type `done`; each is a block with one data line."""
    *blocks, tail = data.split(b"\n\n")
    assert tail == b""
    found = []
    for block in blocks:
        (line,) = [line for line in block.decode().split("\n") if line.startswith("data: ")]
        text = line.removeprefix("data: ")
        found.append({"type": "done"} if text == "[DONE]" else json.loads(text))
    return found


def types_of(data: bytes) -> list[str]:
    """Return the types of a stream's events, in order."""
    return [event["type"] for event in events_of(data)]


class UiMessage:
    """A message that streams add to.

    Attributes:
        parts: What it consists of: texts, reasoning, tools and the beginnings of steps.
        errors: What streams ended with.

    """

    def __init__(self) -> None:
        self.id = ""
        self.metadata: dict[str, Any] = {}
        self.parts: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self.finishes: list[str] = []
        self._open: dict[str, dict[str, Any]] = {}
        self._typed: dict[str, str] = {}
        self._in_step = self._is_over = False

    def read(self, data: bytes) -> "UiMessage":
        """Take a whole stream."""
        self._is_over = False
        for event in events_of(data):
            self.take(event)
        assert self._is_over
        assert not self._in_step
        assert not self._open
        return self

    def take(self, event: dict[str, Any]) -> None:
        """Take one event."""
        assert not self._is_over, f"{event} behind the end"
        kind = event["type"]
        if kind == "done":
            self._is_over = True
            return
        assert kind in KNOWN, event
        block, _, what = kind.partition("-")
        if block in ("text", "reasoning"):
            self._take_block(block, what, event)
        elif block == "tool":
            self._take_tool(what, event)
        elif kind == "start":
            assert self.id in ("", event["messageId"])
            self.id = event["messageId"]
            self.metadata |= event["messageMetadata"]
        elif kind == "start-step":
            assert not self._in_step
            self._in_step = True
            self.parts.append({"type": "step-start"})
        elif kind == "finish-step":
            assert self._in_step
            assert not self._open
            self._in_step = False
        elif kind == "finish":
            assert event["finishReason"] in FINISHES
            self.finishes.append(event["finishReason"])
            self.metadata |= event["messageMetadata"]
        elif kind == "error":
            self.errors.append(event["errorText"])

    @property
    def text(self) -> str:
        """All text, the pieces parted by a bar."""
        return "|".join(part["text"] for part in self.parts if part["type"] == "text")

    def tool(self, call: str) -> dict[str, Any]:
        """Return the one part of a call."""
        (part,) = [part for part in self.parts if part.get("toolCallId") == call]
        return part

    def _take_block(self, block: str, what: str, event: dict[str, Any]) -> None:
        name = f"{block} {event['id']}"
        if what == "start":
            assert self._in_step, event
            assert name not in self._open, event
            part = self._open[name] = {"type": block, "text": ""}
            self.parts.append(part)
        elif what == "delta":
            self._open[name]["text"] += event["delta"]
        else:
            del self._open[name]

    def _take_tool(self, what: str, event: dict[str, Any]) -> None:
        call = event["toolCallId"]
        if what == "input-start":
            assert self._in_step
            is_again, self._typed[call] = call in self._typed, ""
            if is_again:
                part = self.tool(call)
                assert part["type"] != f"tool-{event['toolName']}"
                assert part["state"].startswith("input-")
                part |= {"type": f"tool-{event['toolName']}", "state": "input-streaming"}
                return
            self.parts.append({"type": f"tool-{event['toolName']}", "toolCallId": call, "state": "input-streaming"})
            return
        part = self.tool(call)
        if what == "input-delta":
            assert part["state"] == "input-streaming"
            self._typed[call] += event["inputTextDelta"]
        elif what == "input-available":
            assert part["state"] in ("input-streaming", "input-available")
            part |= {"state": "input-available", "input": event["input"], "typed": self._typed[call]}
        elif what == "input-error":
            assert part["state"] == "input-streaming"
            part |= {"state": "output-error", "input": event["input"], "error": event["errorText"]}
        elif what == "approval-request":
            assert part["state"] in ("input-available", "approval-requested")
            part |= {"state": "approval-requested", "approval": event["approvalId"]}
        elif what == "output-available":
            part |= {"state": "output-available", "output": event["output"]}
        elif what == "output-denied":
            assert part["state"] == "approval-requested"
            part["state"] = "output-denied"
        else:
            part |= {"state": "output-error", "error": event["errorText"]}
