"""Where a secret is found; the catalog names secrets and never holds them."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator


class Secret(BaseModel):
    """Where a secret is found: an environment variable or a file; never the secret itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    env: str | None = None
    file: Path | None = None

    @model_validator(mode="after")
    def _one_place(self) -> "Secret":
        if (self.env is None) == (self.file is None):
            raise ValueError("needs exactly one of env, file")
        return self

    def read(self) -> str | None:
        """Return the secret, or `None` when it is not set."""
        if self.env is not None:
            return os.environ.get(self.env) or None
        assert self.file is not None  # noqa: S101  the validator saw to it
        with suppress(FileNotFoundError):
            return self.file.read_text(encoding="utf-8").strip() or None
        return None


def _text_or_reference(value: object) -> object:
    if isinstance(value, str | Secret):
        return value
    try:
        return Secret.model_validate(value)
    except ValidationError as exc:
        # A union's own errors would speak of its members, and there is only one thing to say.
        raise ValueError("must be text, or say where a secret is found: exactly one of env, file") from exc


TextOrSecret = Annotated[str | Secret, BeforeValidator(_text_or_reference)]
"""A text, or a reference to a secret."""
