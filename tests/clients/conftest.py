"""One cluster for all clients, and the table of what came of each of their cases."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from clients.catalog import client_catalog
from clients.table import FAILED, OK, Cell, render
from cluster import Cluster, running_cluster

CELL = "client-case"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with something to offer to every client."""
    folder = tmp_path_factory.mktemp("clients")
    catalog = folder / "catalog.yaml"
    catalog.write_text(yaml.safe_dump(client_catalog(), sort_keys=False))
    with running_cluster(folder, KITEMESH_CATALOG=str(catalog)) as running:
        yield running


@pytest.fixture(scope="session")
def agent_key(cluster: Cluster) -> str:
    """A key whose requests an agent answers, whether they name one or not."""
    scopes = ("--scope", "chat", "--scope", "approve")
    made = cluster.verb("keys", "create", "--default-agent", "assistant", *scopes, "--json")
    return str(json.loads(made)["key"])


class Outcomes:
    """Collects what the table is made of."""

    def __init__(self) -> None:
        self.cells: list[Cell] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that belongs to the table; one whose set-up failed has failed."""
        told: Any = dict(report.user_properties).get(CELL)
        if told is not None and (report.when == "call" or report.failed):
            self.cells.append(Cell(*told, OK if report.passed else FAILED))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the tables."""
        if self.cells:
            terminalreporter.section("clients")
            for line in render(self.cells):
                terminalreporter.write_line(line)


def pytest_configure(config: pytest.Config) -> None:
    """Listen to the whole run."""
    config.pluginmanager.register(Outcomes(), "client-outcomes")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tell each report whose case it is."""
    for item in items:
        client, case = item.get_closest_marker("client"), item.get_closest_marker("case")
        if client is not None and case is not None:
            name, *version = client.args
            words, *family = case.args
            column = (name, version[0] if version else "")
            item.user_properties.append((CELL, (family[0] if family else "/v1", words, column)))
