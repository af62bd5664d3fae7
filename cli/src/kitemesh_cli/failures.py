"""How a verb gives up: in sentences for a person and with an exit code, never with a traceback."""

from typing import Final

EX_FAILED: Final = 1
EX_CONFIG: Final = 78


class Failed(Exception):
    """A verb cannot do what was asked; the message says why, and what to do."""
