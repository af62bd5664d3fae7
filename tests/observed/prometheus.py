"""A real Prometheus that scrapes a cluster every second, and what it is asked.

Its targets are in a file that it watches, so that processes may come and go. It knows neither rules nor dashboards.
"""

import contextlib
import json
import math
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from kitemesh_cli.processes import spawn
from kitemesh_cli.servers import LOOPBACK, free_port, wait_listening

SCRAPE_S: Final = 1
BINARIES: Final = Path(__file__).parents[2] / ".venv" / "prometheus"
_ASK_S: Final = 10.0
_LOOK_S: Final = 0.1


class Target(NamedTuple):
    """A process that is scraped.

    Attributes:
        address: Host and port of its metrics.
        pool: Of a worker; empty for the other services.

    """

    address: str
    service: str
    instance: str
    pool: str = ""


class Series(NamedTuple):
    """What one series of an answer holds.

    Attributes:
        samples: Seconds since 1970 and value, oldest first; never NaN.

    """

    labels: dict[str, str]
    samples: list[tuple[float, float]]


class Refused(Exception):
    """Prometheus did not take an expression."""


class Prometheus:
    """A running server; made by `running_prometheus`."""

    def __init__(self, port: int, targets: Path) -> None:
        self._url = f"http://{LOOPBACK}:{port}/api/v1/"
        self._targets = targets

    def watch(self, targets: Iterable[Target]) -> None:
        """Scrape these from now on, and nothing else."""
        listed = [
            {
                "targets": [each.address],
                "labels": {
                    "service": each.service,
                    "instance": each.instance,
                    **({"pool": each.pool} if each.pool else {}),
                },
            }
            for each in targets
        ]
        fresh = self._targets.with_suffix(".new")
        fresh.write_text(json.dumps(listed))
        fresh.rename(self._targets)

    def now(self, expression: str) -> list[Series]:
        """Evaluate an expression now; it must not be a scalar's."""
        return _series(self._ask("query", query=expression)["result"])

    def over(self, expression: str, begun_s: float, ended_s: float) -> list[Series]:
        """Evaluate an expression at every second between two times; series without any number are left out."""
        span = {"start": f"{begun_s:.3f}", "end": f"{ended_s:.3f}", "step": str(SCRAPE_S)}
        return _series(self._ask("query_range", query=expression, **span)["result"])

    def firing(self) -> set[str]:
        """Name the alerts that fire now."""
        return {each.labels["alertname"] for each in self.now('ALERTS{alertstate="firing"}')}

    def up(self) -> dict[str, bool]:
        """Tell of each instance whether its last scrape succeeded."""
        return {each.labels["instance"]: each.samples[-1][1] == 1 for each in self.now("up")}

    def unhealthy(self) -> list[str]:
        """Say which rules could not be evaluated, and why."""
        groups = self._ask("rules")["groups"]
        return [f"{rule['name']}: {rule['lastError']}" for g in groups for rule in g["rules"] if rule.get("lastError")]

    def is_ready(self) -> bool:
        """Tell whether it answers questions; one that starts reads its disk first."""
        try:
            self.now("vector(1)")
        except (OSError, Refused):
            return False
        return True

    def _ask(self, what: str, **query: str) -> Any:
        request = urllib.request.Request(self._url + what, urllib.parse.urlencode(query).encode() or None)
        try:
            with urllib.request.urlopen(request, timeout=_ASK_S) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as exc:
            with exc:
                raise Refused(f"{query.get('query', what)}: {exc.read().decode(errors='replace')[:300]}") from exc


@contextlib.contextmanager
def running_prometheus(folder: Path, rules: Mapping[str, str]) -> Iterator[Prometheus]:
    """Have a server while inside; `rules` are files' texts by their names."""
    folder.mkdir(parents=True)
    for name, text in rules.items():
        (folder / name).write_text(text)
    targets, log, port = folder / "targets.json", folder / "prometheus.log", free_port()
    targets.write_text("[]")
    every = f"{SCRAPE_S}s"
    config = {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": [str(folder / name) for name in rules],
        "scrape_configs": [{"job_name": "kitemesh", "file_sd_configs": [{"files": [str(targets)]}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    process = spawn(
        [
            str(BINARIES / "prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={LOOPBACK}:{port}",
            "--log.level=warn",
        ],
        log,
    )
    try:
        wait_listening(process, port, timeout_s=20, log=log)
        found = Prometheus(port, targets)
        end_s = time.monotonic() + _ASK_S
        while not found.is_ready():
            assert time.monotonic() < end_s, log.read_text(errors="replace")[-2000:]
            time.sleep(_LOOK_S)
        yield found
    finally:
        process.kill()
        process.wait()


def _series(result: list[dict[str, Any]]) -> list[Series]:
    found = []
    for each in result:
        values = each["values"] if "values" in each else [each["value"]]
        samples = [(float(at), float(value)) for at, value in values]
        samples = [(at, value) for at, value in samples if not math.isnan(value)]
        if samples:
            found.append(Series(each.get("metric", {}), samples))
    return found
