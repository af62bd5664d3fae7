"""The routes of conversations: list and search them, show one and what was said in it, name it, delete it."""

from typing import Final

from aiohttp import web

from kitemesh_contracts.codec import encode
from kitemesh_contracts.scopes import Scope
from kitemesh_gateway import strict_json
from kitemesh_gateway.auth import Authenticator, Principal
from kitemesh_gateway.body import check_headers, read_body
from kitemesh_gateway.deleting import Deleting
from kitemesh_gateway.dialects.base import JSON, Mistake, Mistakes
from kitemesh_gateway.dialects.conversations_answers import (
    ConversationDeleted,
    ConversationPage,
    MessagePage,
)
from kitemesh_gateway.dialects.conversations_bodies import parse_patch, words_of
from kitemesh_gateway.dialects.conversations_rendering import (
    Place,
    Placed,
    conversation_out,
    messages_of,
    place_text,
    read_place,
)
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.paging import PAGE_MAX, READS_MAX, PageQuery, cursor_of, read_query
from kitemesh_gateway.visibility import conversation_unknown, may_see
from kitemesh_runtime.conversations import Conversation
from kitemesh_runtime.conversations import Conversations as ConversationStore
from kitemesh_runtime.holds import Holds
from kitemesh_runtime.live_turns import LiveTurn, LiveTurns
from kitemesh_runtime.turns import TurnRecord


class Conversations:
    """Answers what concerns conversations.

    Args:
        max_body_bytes: Largest body.
        body_timeout_s: How long a body may take.

    """

    def __init__(
        self,
        authenticator: Authenticator,
        conversations: ConversationStore,
        live_turns: LiveTurns,
        holds: Holds,
        deleting: Deleting,
        *,
        max_body_bytes: int,
        body_timeout_s: float,
    ) -> None:
        self._authenticator: Final = authenticator
        self._conversations: Final = conversations
        self._live_turns: Final = live_turns
        self._holds: Final = holds
        self._deleting: Final = deleting
        self._max_body_bytes: Final = max_body_bytes
        self._body_timeout_s: Final = body_timeout_s

    async def all(self, exchange: Exchange) -> web.Response:
        """List those that the key may see, or those in which every word of `q` is, the newest first."""
        principal = await self._identify(exchange)
        asked, words = _read_list(exchange)
        found, after = await self._find(principal, asked, words)
        now_s = exchange.clock.now_ms() / 1000
        shown = tuple(conversation_out(kept, now_s) for kept in found)
        return exchange.respond(encode(ConversationPage(data=shown, next_cursor=cursor_of(after))), JSON)

    async def one(self, exchange: Exchange) -> web.Response:
        """Show one.

        Raises:
            NotFound: There is none, or not for this key.

        """
        principal = await self._identify(exchange)
        return _show(exchange, await self._get(principal, exchange.tail))

    async def messages(self, exchange: Exchange) -> web.Response:
        """Show what was said in one: the latest messages, in their order.

        Raises:
            NotFound: There is none, or not for this key.

        """
        principal = await self._identify(exchange)
        asked = read_query(exchange, ())
        before = None if asked.before is None else read_place(asked.before)
        if asked.before is not None and before is None:
            raise Mistakes([Mistake("cursor", "must be a next_cursor of this list")])
        await self._get(principal, exchange.tail)
        exchange.conversation = exchange.tail
        found, has_more = await self._said(principal, exchange.tail, before, asked.limit)
        after = place_text(found[0].place) if has_more and found else None
        page = MessagePage(data=tuple(each.message for each in found), next_cursor=cursor_of(after))
        return exchange.respond(encode(page), JSON)

    async def change(self, exchange: Exchange) -> web.Response:
        """Give one another title, or other metadata, and show it.

        Raises:
            NotFound: There is none, or not for this key.

        """
        check_headers(exchange.request, self._max_body_bytes)
        principal = await self._identify(exchange)
        body = await read_body(exchange.request, self._max_body_bytes, self._body_timeout_s)
        patch = parse_patch(strict_json.decode(body))
        await self._get(principal, exchange.tail)
        given = patch.model_fields_set
        changed = await self._conversations.change(
            principal.tenant,
            exchange.tail,
            title=(patch.title or "") if "title" in given else None,
            metadata=(patch.metadata or {}) if "metadata" in given else None,
        )
        if changed is None:
            raise conversation_unknown()
        return _show(exchange, changed)

    async def delete(self, exchange: Exchange) -> web.Response:
        """Delete one with all that belongs to it. A body is not read: there is nothing to say.

        Raises:
            NotFound: There is none, or not for this key.

        """
        principal = await self._identify(exchange)
        await self._deleting.delete(principal, exchange.tail, origin=exchange.request.remote or "")
        exchange.conversation = exchange.tail
        return exchange.respond(encode(ConversationDeleted(id=exchange.tail)), JSON)

    async def _find(
        self, principal: Principal, asked: PageQuery, words: list[str]
    ) -> tuple[list[Conversation], str | None]:
        """Return the conversations of a page, and behind which there are more; `None` at the end."""
        step = (PAGE_MAX if principal.models is not None else asked.limit) + 1
        before = asked.before
        fit: list[Conversation] = []
        for _ in range(READS_MAX):
            if words:
                found = await self._conversations.search(principal.tenant, words, before=before, limit=step)
            else:
                found = await self._conversations.page(principal.tenant, before=before, limit=step)
            fit += (kept for kept in found if may_see(principal, kept))
            if len(fit) > asked.limit:
                return fit[: asked.limit], fit[asked.limit - 1].first
            if len(found) < step:
                return fit, None
            before = found[-1].first
        return fit, before

    async def _said(
        self, principal: Principal, conversation: str, before: Place | None, limit: int
    ) -> tuple[list[Placed], bool]:
        """Return the latest messages before a place, in their order, and whether there are earlier ones."""
        up_to = None if before is None else before.ordinal
        said: list[Placed] = []
        step = limit + 1
        for _ in range(READS_MAX):
            turns = await self._live_turns.spoken(principal.tenant, conversation, up_to=up_to, limit=step)
            for turn in turns:
                if principal.allows(turn.model):
                    said[:0] = await self._said_in(turn, before)
                if len(said) > limit:
                    return said[-limit:], True
            if len(turns) < step:
                return said, False
            up_to = turns[-1].ordinal - 1
        return said, bool(said)

    async def _said_in(self, turn: LiveTurn | TurnRecord, before: Place | None) -> list[Placed]:
        hold = None
        if isinstance(turn, LiveTurn) and turn.hold is not None:
            hold = await self._holds.get(turn.tenant, turn.hold)
        return [each for each in messages_of(turn, hold) if before is None or each.place < before]

    async def _get(self, principal: Principal, conversation: str) -> Conversation:
        found = await self._conversations.get(principal.tenant, conversation)
        if found is None or not may_see(principal, found):
            raise conversation_unknown()
        return found

    async def _identify(self, exchange: Exchange) -> Principal:
        authorization = exchange.request.headers.getall("Authorization", ())
        exchange.principal = principal = await self._authenticator.identify(authorization, exchange.peer)
        principal.require(Scope.CHAT)
        return principal


def _show(exchange: Exchange, kept: Conversation) -> web.Response:
    exchange.conversation = kept.id
    return exchange.respond(encode(conversation_out(kept, exchange.clock.now_ms() / 1000)), JSON)


def _read_list(exchange: Exchange) -> tuple[PageQuery, list[str]]:
    """Read the query of a list.

    Raises:
        Mistakes: With everything that is wrong.

    """
    given = exchange.request.query.getall("q", [])
    words, mistakes = words_of(given) if given else ([], [])
    try:
        asked = read_query(exchange, ())
    except Mistakes as exc:
        raise Mistakes([*exc.mistakes, *mistakes]) from exc
    if mistakes:
        raise Mistakes(mistakes)
    return asked, words
