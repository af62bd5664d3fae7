"""Which endpoint answers a request. Pure: paths are data, and a path's last segment may hold anything."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from kitemesh_gateway.dialects.base import Dialect
from kitemesh_gateway.exchange import Endpoint

NOWHERE: Final = "none"


class Found(NamedTuple):
    """What a path leads to.

    Attributes:
        endpoint: `None` when there is nothing, or not by that method.
        dialect: Says how a refusal looks.
        allowed: The methods that the path has; empty when it is unknown.
        tail: The variable part.
        label: The path's, as its endpoints have it; `NOWHERE` when it is unknown.

    """

    endpoint: Endpoint | None
    dialect: Dialect
    allowed: tuple[str, ...] = ()
    tail: str = ""
    label: str = NOWHERE


class Router:
    """Exact paths first, then the variable ones.

    Args:
        endpoints: Every route.
        fallback: The dialect in which an unknown path is refused.

    """

    def __init__(self, endpoints: Iterable[Endpoint], fallback: Dialect) -> None:
        self._fallback: Final = fallback
        self._exact: dict[str, dict[str, Endpoint]] = {}
        self._prefixes: dict[str, dict[str, Endpoint]] = {}
        for endpoint in endpoints:
            head, brace, _ = endpoint.path.partition("{")
            table = self._prefixes if brace else self._exact
            methods = table.setdefault(head, {})
            methods[endpoint.method] = endpoint
            if endpoint.method == "GET":
                methods["HEAD"] = endpoint

    def find(self, method: str, path: str) -> Found:
        """Look a decoded path up."""
        methods = self._exact.get(path)
        if methods is not None:
            return self._by_method(methods, method, "")
        for head, candidates in self._prefixes.items():
            if path.startswith(head) and len(path) > len(head):
                return self._by_method(candidates, method, path[len(head) :])
        return Found(None, self._fallback)

    @staticmethod
    def _by_method(methods: dict[str, Endpoint], method: str, tail: str) -> Found:
        endpoint = methods.get(method)
        named = endpoint or next(iter(methods.values()))
        return Found(endpoint, named.dialect, tuple(sorted(methods)), tail, named.label)
