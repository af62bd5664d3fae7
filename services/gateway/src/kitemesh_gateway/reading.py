"""The first checks of a request that wants a turn, in the order of the contract, as far as no dialect is needed.

Headers, credential, scope, request rate, idempotency key, body, JSON.
"""

from typing import Final, NamedTuple

from kitemesh_contracts.headers import IDEMPOTENCY_KEY
from kitemesh_contracts.scopes import Scope
from kitemesh_gateway import strict_json
from kitemesh_gateway.admission import Admission
from kitemesh_gateway.auth import Authenticator, Principal
from kitemesh_gateway.body import check_headers, read_body
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.idempotency import read_key


class Read(NamedTuple):
    """A request that wants a turn, read and not yet understood.

    Attributes:
        decoded: The body's JSON.
        key: Its idempotency key.

    """

    principal: Principal
    body: bytes
    decoded: object
    key: str | None


class Reading:
    """Reads requests.

    Args:
        authenticator: Knows who asks.
        admission: Knows how often they may.
        max_body_bytes: Largest body.
        body_timeout_s: How long a body may take.

    """

    def __init__(
        self, authenticator: Authenticator, admission: Admission, *, max_body_bytes: int, body_timeout_s: float
    ) -> None:
        self._authenticator: Final = authenticator
        self._admission: Final = admission
        self._max_body_bytes: Final = max_body_bytes
        self._body_timeout_s: Final = body_timeout_s

    async def read(self, exchange: Exchange, scope: Scope | None = Scope.CHAT) -> Read:
        """Read a request.

        Args:
            exchange: The request.
            scope: What its key must have; `None` leaves that to who knows what is asked for.

        Raises:
            KitemeshError: It is refused.

        """
        request = exchange.request
        check_headers(request, self._max_body_bytes)
        authorization = request.headers.getall("Authorization", ())
        principal = await self._authenticator.identify(authorization, exchange.peer)
        exchange.principal = principal
        if scope is not None:
            principal.require(scope)
        await self._admission.admit(exchange, principal)
        key = read_key(request.headers.getall(IDEMPOTENCY_KEY, ()))
        body = await read_body(request, self._max_body_bytes, self._body_timeout_s)
        return Read(principal, body, strict_json.decode(body), key)
