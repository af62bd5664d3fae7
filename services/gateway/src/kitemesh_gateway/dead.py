"""The routes of dead letters: list, show, requeue and drop what was given up, of all tenants, for operators."""

from typing import Final, Literal, cast

from aiohttp import web

from kitemesh_contracts.codec import encode
from kitemesh_contracts.errors import ErrorCode, NotFound
from kitemesh_contracts.scopes import Scope
from kitemesh_gateway.administrators import Administrators, actor_of
from kitemesh_gateway.dialects.base import JSON, Mistake, Mistakes
from kitemesh_gateway.dialects.dead_answers import Dropped, LetterPage, Requeued, letter_detail, letter_out
from kitemesh_gateway.exchange import Exchange
from kitemesh_gateway.paging import cursor_of, read_query
from kitemesh_gateway.requeueing import Judged, Requeueing
from kitemesh_runtime.dead_letters import DeadLetters, Letter
from kitemesh_runtime.ledger import Ledger, LedgerState

STREAM: Final = "stream"
DIGITS_MAX: Final = 18


class Dead:
    """Answers what concerns dead letters.

    Args:
        administrators: Say who asks.
        letters: The letters.
        requeueing: Judges them, and has their turns go on.
        ledger: What became of a turn's calls.

    """

    def __init__(
        self, administrators: Administrators, letters: DeadLetters, requeueing: Requeueing, ledger: Ledger
    ) -> None:
        self._administrators: Final = administrators
        self._letters: Final = letters
        self._requeueing: Final = requeueing
        self._ledger: Final = ledger

    async def all(self, exchange: Exchange) -> web.Response:
        """List letters."""
        await self._administrators.identify(exchange, Scope.OPERATOR)
        asked = read_query(exchange, (), (STREAM,))
        before = None if asked.before is None else _number(asked.before)
        if asked.before is not None and before is None:
            raise Mistakes([Mistake("cursor", "must be a next_cursor of this list")])
        found = await self._letters.page(stream=asked.ids.get(STREAM), before=before, limit=asked.limit + 1)
        shown = await self._requeueing.judge(found[: asked.limit], is_whole=False)
        page = LetterPage(
            data=tuple(letter_out(each.letter, each.why) for each in shown),
            next_cursor=cursor_of(str(shown[-1].letter.number) if len(found) > len(shown) else None),
        )
        return exchange.respond(encode(page), JSON)

    async def one(self, exchange: Exchange) -> web.Response:
        """Show one."""
        await self._administrators.identify(exchange, Scope.OPERATOR)
        (judged,) = await self._requeueing.judge([await self._find(exchange)])
        detail = letter_detail(judged.letter, judged.why, judged.found, await self._states(judged))
        return exchange.respond(encode(detail), JSON)

    async def requeue(self, exchange: Exchange) -> web.Response:
        """Have its turn go on."""
        principal = await self._administrators.identify(exchange, Scope.OPERATOR)
        letter = await self._find(exchange)
        turn = await self._requeueing.requeue(actor_of(exchange, principal), letter)
        status = cast("Literal['queued', 'running']", turn.status)
        answer = Requeued(id=str(letter.number), turn=turn.id, tenant=turn.tenant, status=status)
        return exchange.respond(encode(answer), JSON)

    async def drop(self, exchange: Exchange) -> web.Response:
        """Remove one; its turn stays as it is."""
        principal = await self._administrators.identify(exchange, Scope.OPERATOR)
        letter = await self._find(exchange)
        (judged,) = await self._requeueing.judge([letter], is_whole=False)
        tenant = principal.tenant if judged.found is None else judged.found.turn.tenant
        await self._requeueing.note(actor_of(exchange, principal), tenant, letter, "dead.dropped")
        await self._letters.remove(letter.number)
        return exchange.respond(encode(Dropped(id=str(letter.number), deleted=True)), JSON)

    async def _find(self, exchange: Exchange) -> Letter:
        number = _number(exchange.tail)
        letter = None if number is None else await self._letters.get(number)
        if letter is None:
            raise NotFound(ErrorCode.DEAD_UNKNOWN, "There is no such dead letter")
        return letter

    async def _states(self, judged: Judged) -> dict[str, LedgerState]:
        if judged.found is None:
            return {}
        turn, before = judged.found
        calls = [call.id for step in (before or turn).steps for call in step.calls]
        rows = [await self._ledger.get(turn.tenant, call) for call in calls]
        return {row.id: row.state for row in rows if row is not None}


def _number(text: str) -> int | None:
    """Read a letter's id; `None` when it is none."""
    is_number = text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX
    return int(text) or None if is_number else None
