"""What a request needs before it is a turn: its agent's prompt filled in, its role, its passages. It knows no HTTP.

What cannot be had is no reason to fail where the contract says so: an unknown role leaves the client's own words.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from kitemesh_contracts.codec import encode
from kitemesh_contracts.commands import Route
from kitemesh_contracts.content import Message, SystemMessage, UserMessage, user_text
from kitemesh_contracts.ids import is_id
from kitemesh_gateway.dialects.base import Mistake, Mistakes, TurnRequest
from kitemesh_gateway.passages import Passages, as_prompt
from kitemesh_runtime import schemas, templates
from kitemesh_runtime.catalog import Agent
from kitemesh_runtime.catalog_file import CatalogHandle

ROLE_HEADER: Final = "x-kitemesh-role"


class Prepared(NamedTuple):
    """A request that can be accepted.

    Attributes:
        headers: To be sent with its answer.

    """

    request: TurnRequest
    headers: Mapping[str, str]


class Preparing:
    """Prepares requests.

    Args:
        catalog: Has the agents and the roles.
        passages: Finds what the knowledge base says.

    """

    def __init__(self, catalog: CatalogHandle, passages: Passages) -> None:
        self._catalog: Final = catalog
        self._passages: Final = passages

    async def prepare(self, tenant: str, request: TurnRequest, route: Route) -> Prepared:
        """Return the request as it is to be accepted.

        Raises:
            Mistakes: The values for the agent's prompt are not as its schema wants them.
            Unavailable: The knowledge base does not answer.

        """
        agent = self._catalog.current.agents.get(route.agent or "")
        if agent is not None and request.prompt is None and agent.headers_schema is not None:
            request = replace(request, prompt=_filled(agent, request.values))
        if request.role is None and not request.retrieval:
            return Prepared(request, {})
        return await self._with_knowledge(tenant, request)

    async def _with_knowledge(self, tenant: str, request: TurnRequest) -> Prepared:
        headers: dict[str, str] = {}
        retrieves, messages, known = request.retrieval, request.messages, None
        if request.role is not None:
            role = self._catalog.current.roles.get(request.role.lower())
            if role is None:
                headers[ROLE_HEADER], retrieves = "unknown", False
            else:
                known = request.role.lower()
                retrieves = retrieves if role.retrieval is None else role.retrieval
                messages = (SystemMessage(text=role.prompt), *_spoken(messages))
        query = _last_said(messages) if retrieves else ""
        found = await self._passages.find(tenant, query, known) if query else ()
        if found:
            messages = _behind_instructions(messages, SystemMessage(text=as_prompt(found)))
        return Prepared(replace(request, messages=messages), headers)


def _filled(agent: Agent, values: Mapping[str, Any]) -> str:
    """Fill an agent's prompt.

    Raises:
        Mistakes: With everything that is wrong with the values.

    """
    assert agent.headers_schema is not None  # noqa: S101  the caller asked
    wrong = schemas.problems(agent.headers_schema, dict(values))
    if wrong:
        raise Mistakes([_mistake(what) for what in wrong])
    return templates.fill(agent.prompt, lambda name: _text(values.get(name)))


def _mistake(what: str) -> Mistake:
    field, _, words = what.partition(": ")
    return Mistake(f"headers.{field}", words) if words and is_id(field) else Mistake("headers", what)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else encode(value).decode()


def _spoken(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    return tuple(message for message in messages if not isinstance(message, SystemMessage))


def _last_said(messages: tuple[Message, ...]) -> str:
    said = [user_text(message) for message in messages if isinstance(message, UserMessage)]
    return said[-1] if said else ""


def _behind_instructions(messages: tuple[Message, ...], more: SystemMessage) -> tuple[Message, ...]:
    last = max((i for i, message in enumerate(messages) if isinstance(message, SystemMessage)), default=-1)
    return (*messages[: last + 1], more, *messages[last + 1 :])
