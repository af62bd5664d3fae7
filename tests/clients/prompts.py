"""What the clients ask: instructions of the scripted model, and the tools and ids that go with them."""

from base64 import b64decode
from typing import Any, Final

from cluster import GROUP

MODEL: Final = GROUP
COUNT: Final = "@count 40"
COUNTED: Final = "".join(f"{n} " for n in range(1, 41))
SLOWLY: Final = "@delay_ms 5\n"
"""Put before a prompt: no two words arrive at once."""
ROLES: Final = "@roles"
THINK: Final = "@reason 4\n@echo Thought through."
CUT_SHORT: Final = "@finish length\n@echo Not all of it"
FORECAST: Final = "What is the weather in Paris?"
"""The server's own tool answers it; the caller sees nothing of the call."""
DELETE: Final = "Delete record 42."
"""The server's own tool would do it, once a person has approved the call."""
BROKEN_OFF: Final = "@delay_ms 5\n@fail upstream.cut after 5\n@count 40"
LIMITED: Final = "@fail upstream.limited"
FAILED: Final = "@fail upstream.failed"
FAILED_LATER: Final = '@call get_weather {"city": "Paris"}\n@then\n@fail upstream.failed'
"""A failure after a tool has run."""
FILES: Final = "@files"
"""The answer tells what files were there."""
PIXEL: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PIXEL_TOLD: Final = f"image/png {len(b64decode(PIXEL))}"
DESCRIBE: Final = "Describe a city."
"""What is asked where the form of the answer is prescribed."""
ENDLESS: Final = "@count 3\n@hang after 3"
FIND: Final = '@call find_city {"name": "Rome"}'
FIND_TWO: Final = FIND + '\n@call find_city {"name": "Oslo"}'
FIND_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}
FIND_TOOL: Final[dict[str, Any]] = {
    "type": "function",
    "function": {"name": "find_city", "description": "Say where a city is.", "parameters": FIND_SCHEMA},
}
"""A tool of the caller's."""


def user(text: str) -> list[dict[str, Any]]:
    """Return the messages of a new conversation."""
    return [{"role": "user", "content": text}]


def find_city(name: str) -> str:
    """Say where a city is."""
    return f"{name} is on the map."
