"""Which addresses a tool may connect to: public ones, and those that its definition allows. Pure.

An address is judged as it will be connected to, after every name was resolved. Whatever is not plainly public is
refused, also what merely leads to such an address by translation or by a tunnel.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

Network = IPv4Network | IPv6Network

_NOT_PUBLIC: Final = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT, and the metadata service of one cloud
        "127.0.0.0/8",
        "168.63.129.16/32",  # the host of every machine in one cloud, reachable from inside only
        "169.254.0.0/16",  # link-local, and the metadata services of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)
# Every other IPv6 range is special: unspecified, loopback, IPv4-mapped and -compatible, NAT64, unique local,
# link-local, site-local, multicast.
_GLOBAL_UNICAST: Final = ip_network("2000::/3")


def is_allowed(address: str, networks: Iterable[Network] = ()) -> bool:
    """Say whether an address, as text, may be connected to.

    Args:
        address: Text that is no IP address is refused.
        networks: What the definition allows besides public addresses. An IPv4 network does not cover the IPv6
            addresses that stand for it.

    """
    return is_within(address, networks) or is_public(address)


def is_within(address: str, networks: Iterable[Network]) -> bool:
    """Say whether an address, as text, lies in one of the networks."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


def is_public(address: str) -> bool:
    """Say whether an address, as text, is of the public internet."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if "%" in address or not parsed.is_global or parsed.is_multicast:
        return False
    if parsed.version == 6 and parsed not in _GLOBAL_UNICAST:  # noqa: PLR2004  the protocol's own number
        return False
    return not any(parsed in network for network in _NOT_PUBLIC)
