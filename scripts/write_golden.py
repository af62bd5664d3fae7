"""Keep the bytes of a new example message as a golden file, which no later release may fail to read."""

# ruff: noqa: INP001  a script, not a package

import sys
from pathlib import Path
from typing import Final

from contract.messages import EXAMPLES
from kitemesh_contracts.codec import encode

GOLDEN: Final = Path(__file__).resolve().parent.parent / "tests" / "contract" / "golden" / "v1"


def main() -> int:
    """Write the file of the example that is named, unless there is one."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    path = GOLDEN / f"{name}.json"
    if name not in EXAMPLES:
        sys.stderr.write(f"tests/contract/messages.py has no example {name!r}: make golden NAME=…\n")
        return 2
    if path.exists():
        sys.stderr.write(f"{path.name} exists; the bytes of a released message do not change\n")
        return 1
    path.write_bytes(encode(EXAMPLES[name][1]))
    sys.stdout.write(f"{path.name} written\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
