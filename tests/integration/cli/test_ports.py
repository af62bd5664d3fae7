import contextlib
import errno
import os
import socket

import pytest

from kitemesh_cli.ports import binding_error, owner_of
from kitemesh_cli.servers import LOOPBACK, free_port


def test_a_free_port_is_free_and_owned_by_nobody() -> None:
    port = free_port()
    assert binding_error(LOOPBACK, port) is None
    assert owner_of(port) is None


@pytest.mark.requirement("start:names-who-has-the-port")
@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, LOOPBACK), (socket.AF_INET, ""), (socket.AF_INET6, "::1")]
)
def test_a_port_in_use_names_its_owner(family: socket.AddressFamily, address: str) -> None:
    with contextlib.closing(socket.socket(family)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, 0))
        sock.listen()
        port = sock.getsockname()[1]
        error = binding_error(address or LOOPBACK, port)
        owner = owner_of(port)
    assert error is not None
    assert error.errno == errno.EADDRINUSE
    assert owner is not None
    assert owner.pid == os.getpid()
    assert "python" in owner.command or "pytest" in owner.command


def test_an_address_of_another_machine_is_told_apart_from_a_port_in_use() -> None:
    error = binding_error("192.0.2.1", free_port())
    assert error is not None
    assert error.errno == errno.EADDRNOTAVAIL


def test_a_client_of_a_port_does_not_own_it() -> None:
    with contextlib.closing(socket.socket()) as server:
        server.bind((LOOPBACK, 0))
        server.listen()
        with socket.create_connection(server.getsockname()) as client:
            assert owner_of(client.getsockname()[1]) is None
