import pytest

from kitemesh_gateway.peers import Peer, origin_of


@pytest.mark.parametrize(
    ("address", "forwarded", "proxies", "origin"),
    [
        ("192.0.2.1", [], 0, "192.0.2.1"),
        ("192.0.2.1", ["203.0.113.9"], 0, "192.0.2.1"),
        ("192.0.2.1", ["203.0.113.9"], 1, "203.0.113.9"),
        # A client writes what it likes before what the proxies add.
        ("192.0.2.1", ["198.51.100.7, 203.0.113.9"], 1, "203.0.113.9"),
        ("192.0.2.1", ["198.51.100.7", "203.0.113.9"], 1, "203.0.113.9"),
        ("192.0.2.1", ["198.51.100.7, 203.0.113.9, 192.0.2.8"], 2, "203.0.113.9"),
        # Whoever came by a shorter way than was said.
        ("192.0.2.1", ["203.0.113.9"], 3, "203.0.113.9"),
        ("192.0.2.1", [], 2, "192.0.2.1"),
        ("192.0.2.1", ["nonsense"], 1, ""),
        ("192.0.2.1", [""], 1, ""),
        ("", [], 0, ""),
        ("2001:db8:1:2:3:4:5:6", [], 0, "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", [], 0, "2001:db8:1:2::/64"),
        ("192.0.2.1", ["[2001:db8::1]"], 1, "2001:db8::/64"),
        ("fe80::1%eth0", [], 0, "fe80::/64"),
        ("::ffff:192.0.2.1", [], 0, "192.0.2.1"),
    ],
)
def test_a_request_comes_from_where_it_is_to_be_believed(
    address: str, forwarded: list[str], proxies: int, origin: str
) -> None:
    assert origin_of(Peer(address, forwarded), proxies) == origin
