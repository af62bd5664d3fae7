"""The folder of a one-machine cluster, `.data` by default: what is kept where, secrets for their owner only."""

import os
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kitemesh_cli.failures import Failed

DEFAULT: Final = Path(".data")
LOGS_KEPT: Final = 3


class DataFolder:
    """Names of the files of one cluster; every path is absolute."""

    def __init__(self, root: Path) -> None:
        self.root: Final = root.absolute()
        self.lock: Final = self.root / "dev.lock"
        self.key: Final = self.root / "key"
        self.pepper: Final = self.root / "pepper"
        self.access: Final = self.root / "access.json"
        self.environment: Final = self.root / "env"
        self.catalog: Final = self.root / "catalog.yaml"
        self.nats: Final = self.root / "nats"
        self.mongo: Final = self.root / "mongo"
        self.logs: Final = self.root / "logs"

    def create(self) -> None:
        """Make the folder, for its owner only, unless it exists.

        Raises:
            Failed: It cannot be made or written.

        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.logs.mkdir(exist_ok=True)
        except OSError as exc:
            taken = isinstance(exc, FileExistsError | NotADirectoryError)
            problem = "is, or lies below, a file" if taken else f"cannot be written ({exc.strerror})"
            raise Failed(f"the data folder {shown(self.root)} {problem}; choose another: make up DATA=…") from exc
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise Failed(f"the data folder {shown(self.root)} is read-only; choose another: make up DATA=…")

    def log(self, name: str) -> Path:
        """Return where a process's output goes."""
        return self.logs / f"{name}.log"

    def environment_of(self, service: str) -> Path:
        """Return where the variables are kept that a service is told instead of the operator's."""
        return self.environment.with_name(f"{self.environment.name}.{service}")

    def forget_environments(self) -> None:
        """Remove what leads to servers that do not run any more."""
        for kept in (self.environment, *self.root.glob(f"{self.environment.name}.*")):
            kept.unlink(missing_ok=True)

    def rotate_logs(self) -> None:
        """Begin new logs; `.1` is the log of the run before, and the oldest goes."""
        for log in sorted(self.logs.glob("*.log")):
            for number in range(LOGS_KEPT, 0, -1):
                older = log.with_name(f"{log.name}.{number}")
                newer = log.with_name(f"{log.name}.{number - 1}") if number > 1 else log
                if newer.exists():
                    newer.replace(older)


def shown(path: Path) -> str:
    """Return a path as a person in this folder would type it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def read_text(path: Path) -> str | None:
    """Return a small file's text without its line end, or `None` when there is no file."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def write_private(path: Path, text: str) -> None:
    """Put a text in place at once, readable by its owner only from the first byte on."""
    # mkstemp makes its file with mode 0600 whatever the umask is.
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_environment(path: Path, variables: Mapping[str, str]) -> None:
    """Keep variables for other verbs; a shell can read the file, too."""
    write_private(path, environment_text(variables))


def environment_text(variables: Mapping[str, str]) -> str:
    """Return variables as a shell reads them."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())


def read_environment(path: Path) -> dict[str, str]:
    """Return what `write_environment` kept; empty when there is no file."""
    lines = (read_text(path) or "").splitlines()
    return {name: "".join(shlex.split(value)) for name, _, value in (line.partition("=") for line in lines)}
