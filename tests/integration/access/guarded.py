"""A server that knows the services' users, as each of them reaches it."""

from typing import NamedTuple

from kitemesh_cli.access import Access
from kitemesh_contracts.permissions import OPERATOR

DATABASE = "access-test"


class Guarded(NamedTuple):
    """A server with users."""

    url: str
    access: Access

    def bus(self, user: str) -> str:
        return self.access.bus_url(self.url, user)

    def store(self, user: str) -> str:
        source = "admin" if user == OPERATOR else DATABASE
        return self.access.store_url(self.url, user, source=source)
