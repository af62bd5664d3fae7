"""Which names announce a secret. Pure. Rather too much is masked than too little."""

import re
from typing import Final

_BORDER: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z0-9]+")
_WORDS: Final = frozenset(
    {
        "auth",
        "authorization",
        "bearer",
        "cookie",
        "credential",
        "credentials",
        "cvc",
        "cvv",
        "jwt",
        "otp",
        "passcode",
        "passphrase",
        "passwd",
        "password",
        "passwords",
        "pwd",
        "secret",
        "secrets",
        "token",
    }
)
_RUNS: Final = ("apikey", "accesskey", "privatekey", "signingkey", "encryptionkey", "sshkey", "password", "secret")


def is_secret_name(name: str) -> bool:
    """Say whether what has this name is to be shown to nobody: `api_key`, `accessToken`, `X-Auth` and their like."""
    words = [word.lower() for word in _BORDER.split(name) if word]
    run = "".join(words)
    return not _WORDS.isdisjoint(words) or any(each in run for each in _RUNS)
