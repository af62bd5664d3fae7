"""Functions that a Python tool's process has to withstand; installed by a test as a package's entry points."""

import os
import sys
import time
from pathlib import Path
from typing import Any


def echo(**arguments: Any) -> object:
    return arguments


def say(text: str) -> str:
    return text


def shout(text: str) -> str:
    print("printed", flush=True)
    sys.stderr.write("printed too\n")
    os.write(1, b"999 returned 3\nabc")
    return text


def fail(kind: str, words: str) -> None:
    raise {"value": ValueError, "lookup": LookupError, "key": KeyError, "runtime": RuntimeError}[kind](words)


def leave(how: str) -> None:
    if how == "exit":
        sys.exit(0)
    if how == "now":
        os._exit(0)
    os.abort()


def flood(size: int) -> str:
    return "x" * size


def eat(mib: int) -> int:
    return len(bytearray(mib * 1024 * 1024))


def spin() -> None:
    while True:
        pass


def sleep(mark: str = "") -> None:
    # Grandchildren are to end with it.
    if mark:
        for _ in range(3):
            if os.fork() == 0:
                os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)", mark])
    time.sleep(600)


def bomb() -> None:
    while True:
        os.fork()
        time.sleep(0.02)


def write(path: str) -> None:
    Path(path).write_text("x", encoding="utf-8")


def environment() -> dict[str, str]:
    return dict(os.environ)


def files() -> list[str]:
    found = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(each.readlink()) if each.name not in "012" else "")
        except FileNotFoundError:
            # What listed them.
            continue
    return [each for each in found if each]


def open_many(path: str) -> int:
    kept = []
    try:
        while len(kept) < 1000:
            kept.append(os.open(path, os.O_RDONLY))
    except OSError:
        return len(kept)
    return len(kept)


def odd(kind: str) -> object:
    return {"set": {1}, "nan": float("nan"), "surrogate": "\ud800", "none": None}[kind]


def pid() -> list[int]:
    return [os.getpid(), os.getppid()]
