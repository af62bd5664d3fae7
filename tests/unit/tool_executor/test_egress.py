"""Which addresses may be connected to, one by one, and that the guard is asked before there is a socket."""

import socket
from ipaddress import ip_network

import pytest

from kitemesh_tool_executor.addresses import is_allowed, is_within
from kitemesh_tool_executor.egress import Blocked, guard

REFUSED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.7",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::8.8.8.8",
    "64:ff9b:1::a00:1",
    "100::1",
    "100:0:0:1::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700::1%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    # Not the one written form of an address, or none at all.
    "2130706433",
    "0177.0.0.1",
    "0x7f.0.0.1",
    "127.1",
    "localhost",
    "",
    "8.8.8.8 ",
    "8.8.8.8\n",
]
ALLOWED = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.1",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:81b::200e",
    "2001:4860:4860::8888",
]


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not is_allowed(address)


@pytest.mark.parametrize("address", ALLOWED)
def test_a_public_address_is_allowed(address: str) -> None:
    assert is_allowed(address)


@pytest.mark.parametrize(
    ("address", "network", "allowed"),
    [
        ("127.0.0.1", "127.0.0.0/8", True),
        ("10.1.2.3", "10.1.0.0/16", True),
        ("10.2.2.3", "10.1.0.0/16", False),
        ("::1", "::1/128", True),
        ("::1", "127.0.0.0/8", False),
        ("127.0.0.1", "::/0", False),
        ("::ffff:10.1.2.3", "10.0.0.0/8", False),
        ("fd12::1", "fd12::/16", True),
        ("169.254.169.254", "10.0.0.0/8", False),
        ("8.8.8.8", "10.0.0.0/8", True),
        ("0x7f.0.0.1", "0.0.0.0/0", False),
    ],
)
def test_a_definition_may_allow_networks(address: str, network: str, allowed: bool) -> None:
    assert is_allowed(address, [ip_network(network)]) is allowed


def test_a_public_address_is_in_no_network_of_the_definition() -> None:
    assert not is_within("8.8.8.8", [ip_network("10.0.0.0/8")])


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "169.254.169.254", "nonsense"])
def test_no_socket_is_made_for_a_refused_address(address: str) -> None:
    make = guard((), plain=False)
    with pytest.raises(Blocked):
        make((socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, 443)))


def test_plain_http_goes_to_the_definitions_networks_only() -> None:
    make = guard((ip_network("10.0.0.0/8"),), plain=True)
    make((socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("10.0.0.1", 80))).close()
    with pytest.raises(Blocked):
        make((socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("8.8.8.8", 80)))
