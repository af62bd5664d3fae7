"""The examples that the APIs' publishers give, as they give them: only host, key, ids and words are put in."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from cluster import Cluster

FOLDER: Final = Path(__file__).parent / "examples"
_PATIENCE_S: Final = 60
_HOSTS: Final = (
    "https://your-kitemesh.example.com",
    "https://api.pilot.inkeep.com",
    "https://your-domain.com",
    "http://localhost:8002",
)


def read_example(name: str, cluster: Cluster, *words: tuple[str, str]) -> str:
    """Return an example that addresses this cluster, with other words in the place of its own."""
    text = (FOLDER / name).read_text()
    for host in _HOSTS:
        text = text.replace(host, cluster.origin)
    text = text.replace('"localhost:8002"', json.dumps(cluster.origin.removeprefix("http://")))
    text = text.replace("fetch('/", f"fetch('{cluster.origin}/").replace("km_your_token_here", cluster.key)
    for old, new in words:
        assert old in text
        text = text.replace(old, json.dumps(new)[1:-1])
    return text


def in_a_shell(example: str, *more: str) -> str:
    """Run a command and return what it prints; `more` are further flags of curl."""
    return _printed(["sh", "-c", example.replace("curl ", " ".join(["curl", "-sS", *more, ""]), 1)])


def in_python(example: str) -> str:
    """Run a Python program and return what it prints."""
    return _printed([sys.executable, "-c", example])


def in_node(example: str, node: str = "node", *, language: str = "module") -> str:
    """Run a module of JavaScript, or with Node.js 22 of TypeScript, and return what it prints."""
    return _printed([node, "--no-warnings", f"--input-type={language}", "--eval", example])


def read_reply(printed: str) -> tuple[Mapping[str, str], str]:
    """Part what `curl -i` prints into headers, in lower case, with the status as `:status`, and the body."""
    head, _, body = printed.replace("\r\n", "\n").partition("\n\n")
    status, *lines = head.split("\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return {":status": status.split()[1], **headers}, body


def _printed(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout
