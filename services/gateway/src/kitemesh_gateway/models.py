"""What a request may name as its model: `GET /v1/models` and `GET /v1/models/{id}`."""

from functools import partial
from typing import Final

from aiohttp import web

from kitemesh_contracts.codec import encode
from kitemesh_contracts.commands import Route
from kitemesh_gateway.auth import Authenticator
from kitemesh_gateway.dialects.base import JSON
from kitemesh_gateway.dialects.completions_answers import ModelList, ModelOut, ModelStateOut
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.model_health import state_of
from kitemesh_gateway.turns import model_unknown
from kitemesh_runtime.catalog_file import CatalogHandle
from kitemesh_runtime.fleet import Fleet


class Models:
    """Answers with what the catalog offers to a key."""

    def __init__(self, authenticator: Authenticator, catalog: CatalogHandle, fleet: Fleet) -> None:
        self._authenticator: Final = authenticator
        self._fleet: Final = fleet
        self._catalog: Final = catalog

    async def all(self, exchange: Exchange) -> web.Response:
        """List them."""
        return exchange.respond(encode(ModelList(data=await self._offered(exchange))), JSON)

    async def one(self, exchange: Exchange) -> web.Response:
        """Return the one whose id is the rest of the path.

        Raises:
            NotFound: There is none, or not for this key.

        """
        for model in await self._offered(exchange):
            if model.id == exchange.tail:
                return exchange.respond(encode(model), JSON)
        raise model_unknown(exchange.tail)

    async def _offered(self, exchange: Exchange) -> tuple[ModelOut, ...]:
        authorization = exchange.request.headers.getall("Authorization", ())
        exchange.principal = principal = await self._authenticator.identify(authorization, exchange.peer)
        catalog = self._catalog.current
        return tuple(
            ModelOut(id=model, owned_by=owner, kitemesh=self._state(catalog.resolve(model)))
            for model, owner in catalog.offered()
            if principal.allows(model)
        )

    def _state(self, route: Route) -> ModelStateOut:
        return ModelStateOut(health=state_of(route.models, partial(self._fleet.health, pool=route.pool)))
