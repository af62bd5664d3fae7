"""Where a request comes from, as far as that is to be believed. Pure."""

import ipaddress
from collections.abc import Sequence
from typing import NamedTuple

_SHARED_BITS = 64
"""Of an address of version 6: whoever has one has all that begin alike."""


class Peer(NamedTuple):
    """What a request shows of its origin.

    Attributes:
        address: Of the other end of the connection; empty where there is none.
        forwarded: Every `X-Forwarded-For` header.

    """

    address: str = ""
    forwarded: Sequence[str] = ()


def origin_of(peer: Peer, proxies: int) -> str:
    """Return what tells one client from another: an address, or the network that one of version 6 lies in.

    Args:
        peer: The request's.
        proxies: How many proxies stand in front, each of which names at the end of the header who asked it. What a
            client wrote there itself stands before that, and is not believed.

    """
    address = peer.address
    if proxies and peer.forwarded:
        hops = [hop.strip() for line in peer.forwarded for hop in line.split(",")]
        address = hops[-min(proxies, len(hops))]
    try:
        parsed = ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        # It is no address: all of these are one client, so that making them up gains nothing.
        return ""
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed), _SHARED_BITS), strict=False))
    return str(parsed)
