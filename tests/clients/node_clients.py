"""Runs the scripts of the Node.js clients, each once, and reads what came of its cases."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from clients import prompts
from cluster import Cluster

FOLDER: Final = Path(__file__).parent
SCRIPTS: Final = FOLDER / "node"
_CASE: Final = re.compile(r'^test\("([^"]+)"', re.MULTILINE)
_PATIENCE_S: Final = 120


class NodeClient(NamedTuple):
    """A script and the packages that it runs with.

    Attributes:
        packages: The folder with their lock file: `node22` brings a Node.js of its own.
        package: Whose version the table shows; empty for what Node.js has by itself.
        family: The routes that it speaks to.

    """

    script: str
    packages: str
    package: str
    family: str = "/v1"

    @property
    def version(self) -> str:
        """The version that the lock file names, if it names one."""
        if not self.package:
            return ""
        lock = json.loads((FOLDER / self.packages / "package-lock.json").read_text())
        return str(lock["packages"][f"node_modules/{self.package}"]["version"])

    @property
    def node(self) -> str:
        """What runs the script: the Node.js of the packages, if they bring one."""
        own = FOLDER / self.packages / "node_modules" / ".bin" / "node"
        return str(own) if own.exists() else "node"

    def cases(self) -> list[str]:
        """Return what the script tests, in its order."""
        return _CASE.findall((SCRIPTS / self.script).read_text())

    def run(self, cluster: Cluster, agent_key: str, folder: Path) -> dict[str, str | None]:
        """Run the script and return each case with its error, `None` where all went well."""
        modules = FOLDER / self.packages / "node_modules"
        assert modules.is_dir(), f"the packages of {self.packages} are not installed; `make test-clients` does that"
        # A script finds the packages beside it, so that the same one proves several versions.
        for each in SCRIPTS.glob("*.mjs"):
            shutil.copy(each, folder)
        (folder / "node_modules").symlink_to(modules)
        results = folder / "results.jsonl"
        done = subprocess.run(
            [self.node, "--test-reporter=./reporter.mjs", f"--test-reporter-destination={results.name}", self.script],
            cwd=folder,
            env={**os.environ, "CLIENT_CASES": json.dumps(_told(cluster, agent_key))},
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
        printed = (done.stdout + done.stderr).strip()
        found = dict(_read(results))
        assert found, printed
        return {case: found.get(case, printed) for case in self.cases()}


def _told(cluster: Cluster, agent_key: str) -> Mapping[str, object]:
    texts = {name: value for name, value in vars(prompts).items() if name.isupper() and isinstance(value, str)}
    return {
        "origin": cluster.origin,
        "key": cluster.key,
        "agentKey": agent_key,
        "model": prompts.MODEL,
        "prompts": texts,
        "tool": prompts.FIND_TOOL,
    }


def _read(results: Path) -> Iterator[tuple[str, str | None]]:
    for line in results.read_text().splitlines():
        told = json.loads(line)
        yield told["case"], told["error"]
