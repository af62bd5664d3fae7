"""The bytes of every released message stay readable, and are written the same again."""

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from contract.messages import EXAMPLES
from kitemesh_contracts import codec, commands, deltas, events

GOLDEN = Path(__file__).parent / "golden" / "v1"


def golden(name: str) -> bytes:
    """Return the bytes that were released."""
    path = GOLDEN / f"{name}.json"
    if not path.exists():
        pytest.fail(f"the example {name} has no golden bytes yet; keep them: make golden NAME={name}")
    return path.read_bytes()


@pytest.mark.requirement("contract:golden-bytes")
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_message_is_written_as_its_golden_bytes(name: str) -> None:
    assert codec.encode(EXAMPLES[name][1]) == golden(name)


@pytest.mark.requirement("contract:golden-bytes")
@pytest.mark.parametrize("name", EXAMPLES)
def test_golden_bytes_are_read_as_the_message(name: str) -> None:
    decoder, message = EXAMPLES[name]
    decoded = codec.decode(decoder, golden(name))
    assert type(decoded) is type(message)
    assert codec.encode(decoded) == codec.encode(message)


def test_released_bytes_are_not_written_again(repository: Path) -> None:
    name = next(iter(EXAMPLES))
    before = golden(name)
    command = [sys.executable, str(repository / "scripts" / "write_golden.py")]
    environ = {**os.environ, "PYTHONPATH": str(repository / "tests")}
    told = [
        subprocess.run([*command, word], env=environ, capture_output=True, text=True, check=False)
        for word in (name, "nonsense")
    ]
    assert [each.returncode for each in told] == [1, 2]
    assert "do not change" in told[0].stderr
    assert golden(name) == before


def test_every_golden_file_has_its_example() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(EXAMPLES)


@pytest.mark.requirement("contract:golden-bytes")
def test_every_kind_of_message_has_an_example() -> None:
    kinds = {*get_args(commands.Command), commands.Parcel, *get_args(events.Event), *get_args(deltas.Relayed)}
    assert kinds <= {type(message) for _, message in EXAMPLES.values()}


@pytest.mark.requirement("contract:newer-fields-are-ignored")
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_field_that_a_newer_release_adds_is_ignored(name: str) -> None:
    decoder, message = EXAMPLES[name]
    document = msgspec.json.decode(golden(name))
    newer = msgspec.json.encode({**document, "added_later": {"x": 1}})
    assert codec.encode(codec.decode(decoder, newer)) == codec.encode(message)
