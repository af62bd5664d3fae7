"""`POST /run/api/chat`: a new message, answers to held calls, or both."""

from typing import Final

from aiohttp import web

from kitemesh_contracts.errors import ErrorCode, KitemeshError
from kitemesh_contracts.headers import LAST_EVENT_ID
from kitemesh_gateway.auth import Principal
from kitemesh_gateway.chat import Chat
from kitemesh_gateway.dialects.run_chat import RunChat
from kitemesh_gateway.dialects.run_chat_parse import Asked, parse
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.reattaching import Reattaching
from kitemesh_gateway.ui_answers import Answered, UiAnswers
from kitemesh_gateway.ui_continuing import UiContinuing
from kitemesh_gateway.visibility import conversation_unknown

EMIT_OPERATIONS: Final = "x-emit-operations"
_NOTHING_LEFT: Final = frozenset(
    {ErrorCode.CONVERSATION_UNKNOWN, ErrorCode.APPROVAL_UNKNOWN, ErrorCode.APPROVAL_GONE},
)


def tells_operations(exchange: Exchange) -> bool:
    """Tell whether a client wants to be told what the server does."""
    return exchange.request.headers.get(EMIT_OPERATIONS, "").lower() == "true"


class UiChat:
    """Answers chat requests of the UI message stream.

    Args:
        chat: Runs new messages.
        answers: Finds the calls that answers mean.
        continuing: Answers with what follows them.
        reattaching: Answers a request that carries `Last-Event-ID`.
        dialect: What is spoken.

    """

    def __init__(
        self, chat: Chat, answers: UiAnswers, continuing: UiContinuing, reattaching: Reattaching, dialect: RunChat
    ) -> None:
        self._chat: Final = chat
        self._answers: Final = answers
        self._continuing: Final = continuing
        self._reattaching: Final = reattaching
        self._dialect: Final = dialect

    async def handle(self, exchange: Exchange) -> web.StreamResponse:
        """Decide what is answered, run what is new, and answer with the new turn, else with the one that goes on."""
        exchange.dialect = self._dialect.told(tells_operations=tells_operations(exchange))
        if LAST_EVENT_ID in exchange.request.headers:
            return await self._reattaching.handle(exchange)
        read = await self._chat.read(exchange)
        wanted = parse(read.decoded)
        exchange.conversation = wanted.conversation or ""
        found = await self._find(read.principal, wanted)
        if wanted.asked is not None:
            if found is not None:
                await self._continuing.decide(exchange, read.principal, found)
            return await self._chat.run(exchange, read.principal, wanted.asked, key=read.key, body=read.body)
        if found is None:
            raise conversation_unknown()
        return await self._continuing.answer(exchange, read.principal, found, stream=wanted.stream)

    async def _find(self, principal: Principal, wanted: Asked) -> Answered | None:
        """Return the calls that answers mean; beside a new message they may mean none any more."""
        if not wanted.replies or wanted.conversation is None:
            return None
        try:
            return await self._answers.find(principal, wanted.conversation, wanted.replies)
        except KitemeshError as exc:
            if wanted.asked is None or exc.code not in _NOTHING_LEFT:
                raise
            return None
