"""Which endpoint answers a request. Pure: paths are data, with at most one variable part each.

`{id}` is one segment that must be an id; `{+id}` ends a path and takes all that follows, slashes included.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from kitemesh_contracts.ids import is_id
from kitemesh_gateway.dialects.base import Dialect
from kitemesh_gateway.exchange import Endpoint

NOWHERE: Final = "none"
_REST: Final = "+"

_Methods = dict[str, Endpoint]


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
        self._exact: dict[str, _Methods] = {}
        self._open: dict[str, _Methods] = {}
        self._by_id: dict[tuple[str, str], _Methods] = {}
        for endpoint in endpoints:
            head, brace, rest = endpoint.path.partition("{")
            if not brace:
                methods = self._exact.setdefault(head, {})
            elif rest.startswith(_REST):
                methods = self._open.setdefault(head, {})
            else:
                methods = self._by_id.setdefault((head, rest.partition("}")[2]), {})
            methods[endpoint.method] = endpoint
            if endpoint.method == "GET":
                methods["HEAD"] = endpoint

    def find(self, method: str, path: str) -> Found:
        """Look a decoded path up."""
        methods = self._exact.get(path)
        if methods is not None:
            return self._by_method(methods, method, "")
        dialect = self._fallback
        for (head, end), candidates in self._by_id.items():
            if path.startswith(head) and path.endswith(end):
                tail = path[len(head) : len(path) - len(end)]
                if is_id(tail):
                    return self._by_method(candidates, method, tail)
                dialect = next(iter(candidates.values())).dialect
        for head, candidates in self._open.items():
            if path.startswith(head) and len(path) > len(head):
                return self._by_method(candidates, method, path[len(head) :])
        return Found(None, dialect)

    @staticmethod
    def _by_method(methods: _Methods, method: str, tail: str) -> Found:
        endpoint = methods.get(method)
        named = endpoint or next(iter(methods.values()))
        return Found(endpoint, named.dialect, tuple(sorted(methods)), tail, named.label)
