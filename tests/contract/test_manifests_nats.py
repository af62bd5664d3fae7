"""The NATS cluster that `k8s` brings, started here from its own configuration, and TLS as production has it."""

import asyncio
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
import yaml

from kitemesh_cli import servers
from kitemesh_cli.access import Access, ensure_access
from kitemesh_contracts.errors import Unavailable
from kitemesh_contracts.permissions import OPERATOR
from kitemesh_runtime.bus_nats import open_bus
from kitemesh_runtime.driver_mongo import open_database, ping
from manifests import FOLDER, container, of_kind
from real_servers import running_mongod
from tls_certificates import Certificates, write_certificates

COMPONENT = FOLDER / "components" / "nats-cluster"
MIB = 1 << 20
SIZES = {"MB": 10**6, "GB": 10**9, "Mi": MIB, "Gi": 1 << 30, "MiB": MIB}


class Node(NamedTuple):
    client: int
    peer: int
    monitor: int


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return write_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def trusted(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the authority as the component private-ca has a pod do."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> Access:
    return ensure_access(tmp_path_factory.mktemp("access") / "passwords.json")


@pytest.fixture(scope="module")
def nodes(
    certificates: Certificates, access: Access, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Node, ...]]:
    """Three servers of the component's configuration, moved to loopback and to folders of the test."""
    found = tuple(Node(*(servers.free_port() for _ in range(3))) for _ in range(3))
    root = tmp_path_factory.mktemp("nats")
    with ExitStack() as stack:
        for index, node in enumerate(found):
            folder = root / str(index)
            folder.mkdir()
            text = (COMPONENT / "nats.conf").read_text()
            for place, here in (
                ("0.0.0.0:4222", f"127.0.0.1:{node.client}"),
                ("0.0.0.0:6222", f"127.0.0.1:{node.peer}"),
                ("0.0.0.0:8222", f"127.0.0.1:{node.monitor}"),
                ('"/data"', f'"{folder}/data"'),
                ("/run/nats", str(folder)),
                ("/etc/nats-tls", str(certificates.certificate.parent)),
                *((f"kitemesh-nats-{i}.kitemesh-nats-peers:6222", f"127.0.0.1:{found[i].peer}") for i in range(3)),
            ):
                assert place in text
                text = text.replace(place, here)
            (folder / "nats.conf").write_text(text)
            (folder / "nats-users.conf").write_text(access.nats_users())
            process = subprocess.Popen(
                [str(servers.nats_binary()), "--config", str(folder / "nats.conf"), "--log", str(folder / "log")],
                env={**os.environ, "POD_NAME": f"kitemesh-nats-{index}"},
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            servers.wait_listening(process, node.client, timeout_s=10, log=folder / "log")
        yield found


@pytest.mark.requirement("kubernetes:nats-cluster")
async def test_three_servers_find_each_other(nodes: tuple[Node, ...]) -> None:
    async with asyncio.timeout(15), aiohttp.ClientSession() as session:
        for index, node in enumerate(nodes):
            others: set[str] = set()
            while len(others) < 2:
                async with session.get(f"http://127.0.0.1:{node.monitor}/routez") as response:
                    others = {route["remote_name"] for route in (await response.json())["routes"]}
            assert others == {f"kitemesh-nats-{i}" for i in range(3) if i != index}


async def test_every_probe_is_answered(nodes: tuple[Node, ...]) -> None:
    only = container(_servers()["spec"]["template"])
    async with asyncio.timeout(15), aiohttp.ClientSession() as session:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            path = only[probe]["httpGet"]["path"]
            async with session.get(f"http://127.0.0.1:{nodes[0].monitor}{path}") as response:
                assert response.status == 200, path


@pytest.mark.requirement("kubernetes:nats-cluster")
@pytest.mark.usefixtures("trusted")
async def test_a_service_connects_with_tls_as_its_own_user(nodes: tuple[Node, ...], access: Access) -> None:
    for user in ("gateway", OPERATOR):
        url = access.bus_url(f"tls://localhost:{nodes[0].client}", user)
        async with open_bus(url, name="test", inbox_prefix=f"_INBOX.{user}", connect_timeout_s=5) as bus:
            await bus.barrier()
            assert bus.connected


async def test_a_server_whose_authority_is_not_trusted_is_not_talked_to(
    nodes: tuple[Node, ...], access: Access
) -> None:
    url = access.bus_url(f"tls://localhost:{nodes[0].client}", OPERATOR)
    with pytest.raises(Unavailable, match="certificate"):
        async with open_bus(url, name="test", connect_timeout_s=0.3):
            pass


async def test_mongodb_is_reached_with_tls_by_what_the_same_variable_names(
    certificates: Certificates, trusted: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--tlsMode", "requireTLS", "--tlsCertificateKeyFile", str(certificates.both))
    with running_mongod(tmp_path, *flags) as url:
        async with open_database(f"{url}&tls=true", name="test") as database:
            await ping(database)
        monkeypatch.delenv("SSL_CERT_FILE")
        async with open_database(f"{url}&tls=true", name="test", select_timeout_s=0.3) as database:
            with pytest.raises(Unavailable) as refused:
                await ping(database)
    assert "certificate" in str(refused.value.__cause__)


def test_ports_and_names_are_those_of_the_configuration() -> None:
    text = (COMPONENT / "nats.conf").read_text()
    ports = {port["name"]: port["containerPort"] for port in container(_servers()["spec"]["template"])["ports"]}
    assert {f'"0.0.0.0:{port}"' for port in ports.values()} == set(re.findall(r'"0\.0\.0\.0:\d+"', text))
    services = of_kind(_documents("services.yaml"), "Service")
    assert _servers()["spec"]["serviceName"] in services
    routes = re.findall(r'"nats://(\S+?)-(\d)\.(\S+?):(\d+)"', text)
    name, peers = _servers()["metadata"]["name"], _servers()["spec"]["serviceName"]
    assert routes == [
        (name, str(index), peers, str(ports["cluster"])) for index in range(_servers()["spec"]["replicas"])
    ]
    assert services[peers]["spec"]["publishNotReadyAddresses"] is True


def test_the_server_of_the_dev_overlay_understands_its_configuration() -> None:
    config = FOLDER / "overlays" / "dev" / "nats.conf"
    command = [str(servers.nats_binary()), "-t", "-c", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_nats_keeps_fits_into_what_it_has() -> None:
    only = container(_servers()["spec"]["template"])
    text = (COMPONENT / "nats.conf").read_text()
    (claim,) = _servers()["spec"]["volumeClaimTemplates"]
    environment = {each["name"]: each.get("value", "") for each in only["env"]}
    memory = _bytes(only["resources"]["limits"]["memory"])
    assert _bytes(_setting(text, "max_file_store")) < _bytes(claim["spec"]["resources"]["requests"]["storage"])
    assert _bytes(_setting(text, "max_memory_store")) < _bytes(environment["GOMEMLIMIT"]) < memory


def test_a_lame_duck_has_its_time() -> None:
    text = (COMPONENT / "nats.conf").read_text()
    waits_s = sum(int(_setting(text, name).strip('"s')) for name in ("lame_duck_grace_period", "lame_duck_duration"))
    pod = _servers()["spec"]["template"]
    assert pod["spec"]["terminationGracePeriodSeconds"] > waits_s
    pid_file = _setting(text, "pid_file").strip('"')
    assert container(pod)["lifecycle"]["preStop"]["exec"]["command"] == ["nats-server", f"-sl=ldm={pid_file}"]


def _documents(name: str) -> list[dict[str, object]]:
    return list(yaml.safe_load_all((COMPONENT / name).read_text()))


def _servers() -> dict[str, object]:
    (found,) = of_kind(_documents("servers.yaml"), "StatefulSet").values()
    return found


def _setting(text: str, name: str) -> str:
    (found,) = re.findall(rf"^\s*{name}: (\S+)$", text, re.MULTILINE)
    return str(found)


def _bytes(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(\w+)", text).groups()
    return int(number) * SIZES[unit]
