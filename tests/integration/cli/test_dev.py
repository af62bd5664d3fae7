"""The supervisor with real servers and a stand-in for each service."""

import contextlib
import functools
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import psutil
import pytest

from kitemesh_cli.data_folder import read_environment
from kitemesh_cli.servers import free_port

HERE = Path(__file__).parent
CHILDREN = 4
PATIENCE_S = 60.0


class Supervisor:
    """`kitemesh dev` under test, read line by line."""

    def __init__(self, data: Path, *, port: int | None = None, **environ: str) -> None:
        self.port = port or free_port()
        self.data = data
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            command("dev", "--data", str(data), "--port", str(self.port)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(**environ),
        )

    @property
    def output(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def expect(self, words: str) -> str:
        """Read up to the line with these words; one that does not come in time ends the process."""
        patience = threading.Timer(PATIENCE_S, self.process.kill)
        patience.start()
        try:
            for line in self.output:
                self.lines.append(line)
                if words in line:
                    return line
        finally:
            patience.cancel()
        raise AssertionError(f"it ended without {words!r}:\n" + "".join(self.lines))

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self) -> int:
        """Wait for its end and return its status; fails when it leaves anything."""
        patience = threading.Timer(PATIENCE_S, self.process.kill)
        patience.start()
        try:
            self.lines += self.output.readlines()
            return self.process.wait(20)
        finally:
            patience.cancel()


def command(*words: str) -> list[str]:
    return [sys.executable, str(HERE / "stand_in.py"), *words]


def environment(**more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("KITEMESH_", "OPENAI_"))}
    return {**inherited, "PYTHONPATH": str(HERE), **more}


@contextlib.contextmanager
def started(data: Path, **environ: str) -> Iterator[Supervisor]:
    """Start, and make sure of the end."""
    supervisor = Supervisor(data, **environ)
    try:
        yield supervisor
    finally:
        supervisor.process.kill()
        supervisor.process.wait()
        supervisor.output.close()


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=10)[1]


@pytest.mark.requirement("start:key-is-kept", "start:leaves-nothing")
def test_a_cluster_starts_says_where_it_is_and_stops_without_a_trace(tmp_path: Path, verb: Callable[..., Any]) -> None:
    data = tmp_path / "data"
    with started(data) as supervisor:
        supervisor.expect("Ctrl-C stops everything")
        family = supervisor.family()
        assert len(family) == CHILDREN
        text = "".join(supervisor.lines)
        key = (data / "key").read_text().strip()
        assert f"http://127.0.0.1:{supervisor.port}/v1" in text
        assert text.count(f"Authorization: Bearer {key}") == 2
        assert (data / "key").stat().st_mode & 0o777 == 0o600

        listed = verb("keys", "list", "--tenant", "dev", "--data", str(data))
        assert "development" in listed.out, listed.err

        second = verb("dev", "--data", str(data), "--port", str(free_port()))
        assert second.code == 1
        assert f"process {supervisor.process.pid} at http://127.0.0.1:{supervisor.port}" in second.err

        elsewhere = verb("dev", "--data", str(tmp_path / "other"), "--port", str(supervisor.port))
        assert elsewhere.code == 1
        assert f"port {supervisor.port} is taken by process" in elsewhere.err
        assert "stand_in" in elsewhere.err
        assert "make up PORT=" in elsewhere.err

        stopped = verb("down", "--data", str(data))
        assert stopped.code == 0, stopped.err
        assert supervisor.end() == 0
        assert gone(family)
    assert not (data / "env").exists()
    assert verb("down", "--data", str(data)).out == f"nothing runs from {data}\n"

    with started(data) as again:
        again.expect("as before")
        assert key in again.lines[-1]
        again.expect("Ctrl-C stops everything")
        again.process.send_signal(signal.SIGINT)
        assert again.end() == 0


@pytest.mark.requirement("fault:killed-process-comes-back")
def test_what_dies_comes_back_and_nothing_survives_a_supervisor_that_is_killed(
    tmp_path: Path, verb: Callable[..., Any]
) -> None:
    with started(tmp_path / "data") as supervisor:
        supervisor.expect("Ctrl-C stops everything")
        urls = read_environment(tmp_path / "data" / "env")
        for name in ("nats-server", "mongod", "stand_in"):
            victim = next(child for child in supervisor.family() if name in " ".join(child.cmdline()))
            victim.kill()
            supervisor.expect("was ended by SIGKILL")
            supervisor.expect("is ready again")
        assert read_environment(tmp_path / "data" / "env") == urls
        listed = verb("keys", "list", "--tenant", "dev", "--data", str(tmp_path / "data"))
        assert listed.code == 0, listed.err
        family = supervisor.family()
        assert len(family) == CHILDREN
        supervisor.process.kill()
        assert gone(family)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_start_ends_it(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path / "data") as supervisor:
        supervisor.expect("mongod")
        family = supervisor.family()
        supervisor.process.send_signal(number)
        assert supervisor.end() == 0
        assert supervisor.lines[-1] == "stopped\n"
        assert gone(family)


@pytest.mark.requirement("start:servers-of-ones-own")
def test_servers_of_ones_own_are_used(tmp_path: Path, nats_url: str, mongo_url: str) -> None:
    own = {"KITEMESH_NATS_URL": nats_url, "KITEMESH_MONGO_URL": mongo_url, "KITEMESH_MONGO_DATABASE": "cli-own-servers"}
    with started(tmp_path / "data", **own) as supervisor:
        supervisor.expect("Ctrl-C stops everything")
        assert nats_url in "".join(supervisor.lines)
        assert not any(re.search("nats-server|mongod", " ".join(child.cmdline())) for child in supervisor.family())
        supervisor.process.send_signal(signal.SIGTERM)
        assert supervisor.end() == 0


def test_wrong_settings_are_told_before_anything_starts(tmp_path: Path) -> None:
    told = subprocess.run(
        command("dev", "--data", str(tmp_path / "data"), "--port", "many"),
        capture_output=True,
        text=True,
        env=environment(
            KITEMESH_NATS="nats://127.0.0.1:1",
            KITEMESH_SLOTS="abc",
            KITEMESH_LOG_LEVEL="loud",
            OPENAI_BASE_URL="127.0.0.1:1",
        ),
        timeout=60,
        check=False,
    )
    assert told.returncode == 78
    assert "KITEMESH_NATS is not a kitemesh setting" in told.stderr
    assert [line.split()[1].rstrip(":") for line in told.stderr.splitlines()] == [
        "KITEMESH_LOG_LEVEL",
        "KITEMESH_NATS",
        "KITEMESH_PORT",
        "KITEMESH_SLOTS",
        "OPENAI_BASE_URL",
    ]
    assert not (tmp_path / "data").exists()


def test_a_wrong_catalog_is_told_with_its_file_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("{providers: {}, models: {m: {provider: nobody}}}")
    told = subprocess.run(
        command("dev", "--data", str(tmp_path / "data"), "--port", str(free_port())),
        capture_output=True,
        text=True,
        env=environment(KITEMESH_CATALOG=str(tmp_path / "own.yaml")),
        timeout=60,
        check=False,
    )
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr == f"kitemesh: {tmp_path / 'own.yaml'}: models.m: no provider 'nobody'\n"
    assert not (tmp_path / "data").exists()


def test_what_becomes_of_an_edited_catalog_is_told(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("{providers: {p: {kind: scripted}}, models: {m: {provider: p}}}")
    with started(tmp_path / "data", KITEMESH_CATALOG=str(own)) as supervisor:
        supervisor.expect("Ctrl-C stops everything")
        own.write_text("{providers: {p: {kind: scripted}}, models: {m: {provider: nobody}}}")
        supervisor.expect("catalog refused, the old one serves on:")
        supervisor.expect(f"{own}: models.m: no provider 'nobody'")
        own.write_text("{providers: {p: {kind: scripted}}, models: {m: {provider: p}, n: {provider: p}}}")
        supervisor.expect("catalog loaded: 2 models")
        own.write_text("{providers: {p: {kind: scripted}}, models: {m: {provider: p}}, pools: {tool: {fast: {}}}}")
        supervisor.expect("catalog refused, the old one serves on:")
        supervisor.expect(f"{own}: pools.tool.fast: it has no queues; run `kitemesh bootstrap` with this catalog")
        supervisor.process.send_signal(signal.SIGHUP)
        supervisor.process.send_signal(signal.SIGHUP)
        assert supervisor.end() == 0
        assert not any("stopping at once" in line for line in supervisor.lines)


def test_a_terminal_that_closes_stops_the_cluster_although_nobody_sends_a_signal(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    # The session's leader gets the SIGHUP and waits for its child, as make does.
    leader = subprocess.Popen(
        [
            "sh",
            "-c",
            'trap : HUP; "$@"; exit $?',
            "sh",
            *command("dev", "--data", str(tmp_path / "data"), "--port", "0"),
        ],
        env=environment(),
        pass_fds=[theirs],
        preexec_fn=functools.partial(os.login_tty, theirs),  # noqa: PLW1509  the child only takes its terminal
    )
    os.close(theirs)
    printed = b""
    while b"Ctrl-C stops everything" not in printed:
        printed += os.read(ours, 4096)
    family = psutil.Process(leader.pid).children(recursive=True)
    assert len(family) == CHILDREN + 1
    os.close(ours)
    assert gone(family)
    leader.wait(20)
