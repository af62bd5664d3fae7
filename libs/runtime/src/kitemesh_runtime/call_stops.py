"""Where a turn that is being cancelled meets its calls: those that have not begun never will.

A call with an effect begins with its row in the ledger, so whoever inserts the row first wins. The turn has to be
marked before, or a call could join it meanwhile. Who cancels, and why, is not known here.
"""

import asyncio
import secrets
from collections.abc import Mapping

from kitemesh_runtime.catalog_tools import Tool
from kitemesh_runtime.ledger import Ledger, LedgerRow
from kitemesh_runtime.live_turns import LiveTurn


async def stop_calls(ledger: Ledger, turn: LiveTurn, tools: Mapping[str, Tool], *, by: str = "") -> list[LedgerRow]:
    """Win the calls that have not begun; return the row of each call: `cancelled`, or else it had begun.

    Args:
        ledger: Of the calls.
        turn: As it was when it was marked.
        tools: The catalog's.
        by: Stands in the rows of calls that are won; empty for what nobody else has.

    """
    names = {call.id: call.name for step in turn.steps for call in step.calls}
    outstanding = [call for job in turn.jobs if job.kind == "tool" for call in job.calls]
    by = by or secrets.token_hex(16)
    rows = (_row(turn, call, names.get(call, ""), tools, by) for call in outstanding)
    return await asyncio.gather(*(ledger.dispatch(turn.tenant, row) for row in rows))


def _row(turn: LiveTurn, call: str, name: str, tools: Mapping[str, Tool], by: str) -> LedgerRow:
    tool = tools.get(name)
    return LedgerRow(
        id=call,
        tenant=turn.tenant,
        turn=turn.id,
        tool=name,
        effect="once" if tool is None else tool.effects(),
        state="cancelled",
        by=by,
        args_sha256="",
    )
