"""`kitemesh usage`: what a tenant's turns cost."""

import argparse
import asyncio
import os
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple, get_args

import msgspec

from kitemesh_cli.arguments import add_data, folder_of, identifier
from kitemesh_cli.connections import open_cli_stores
from kitemesh_cli.failures import Failed
from kitemesh_cli.output import add_json, print_json
from kitemesh_cli.settings import KeysSettings, load_settings, tenant_of
from kitemesh_cli.tables import lay_out
from kitemesh_runtime.usage import COUNTS, By, Period, UsageRow, Usages

DAYS: Final = 30
PAGE: Final = 1000

DESCRIPTION = """\
Show how many turns ended, and the tokens that they cost, by day, model, key or tenant. A turn counts on the day (UTC)
on which it ended, half a minute later, and goes on counting when it is deleted.

examples:
  kitemesh usage                              the last 30 days, a line for each
  kitemesh usage --by model --from 2026-11-01 --to 2026-11-30
  kitemesh usage --by tenant --json           every tenant
"""


class Told(NamedTuple):
    """What the store says.

    Attributes:
        as_of_s: Up to when turns are counted, epoch seconds; 0 when none were ever.

    """

    rows: Sequence[UsageRow]
    as_of_s: float


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = verbs.add_parser(
        "usage",
        help="show what turns cost",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--from", type=_day, dest="first", metavar="DAY", help=f"YYYY-MM-DD (default: {DAYS} days)")
    parser.add_argument("--to", type=_day, dest="last", metavar="DAY", help="the last day (default: today)")
    parser.add_argument("--by", choices=get_args(By), default="day", help="what a line is of (default: %(default)s)")
    parser.add_argument(
        "--tenant",
        type=identifier,
        metavar="T",
        help="whose; the anonymous tenant's when left out (KITEMESH_ANONYMOUS_TENANT)",
    )
    add_json(parser)
    add_data(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Be the verb."""
    folder = folder_of(arguments)
    settings = load_settings(KeysSettings, folder, os.environ)
    by: By = arguments.by
    if by == "tenant" and arguments.tenant is not None:
        raise Failed("--by tenant is about all of them: leave --tenant out")
    tenant = None if by == "tenant" else tenant_of(arguments.tenant, settings, folder)
    period = _period(arguments.first, arguments.last)

    async def read() -> Told:
        async with open_cli_stores(settings) as stores:
            as_of_s = await stores.usage.as_of()
            return Told(await _all(stores.usage, tenant, period, by), as_of_s)

    told = asyncio.run(read())
    if arguments.json:
        print_json(_public(told, tenant, period, by))
        return 0
    whose = "any tenant" if tenant is None else f"tenant {tenant}"
    if not told.rows:
        print(f"no turns of {whose} that ended from {period.first} to {period.last} are counted")
    else:
        print(_table(told.rows, by))
    print(f"counted up to {_instant(told.as_of_s)}" if told.as_of_s else "nothing was counted so far")
    return 0


async def _all(usage: Usages, tenant: str | None, period: Period, by: By) -> list[UsageRow]:
    rows: list[UsageRow] = []
    while True:
        after = rows[-1].name if rows else None
        page = await usage.read(tenant, period, by=by, after=after, limit=PAGE)
        rows += page
        if len(page) < PAGE:
            return rows


def _period(first: date | None, last: date | None) -> Period:
    today = datetime.now(UTC).date()
    last = last or max(today, first or today)
    first = first or last - timedelta(days=DAYS - 1)
    if first > last:
        raise Failed("--from must not be after --to")
    return Period(first, last)


def _public(told: Told, tenant: str | None, period: Period, by: By) -> dict[str, object]:
    rows = [msgspec.to_builtins(row) for row in told.rows]
    return {
        "tenant": tenant,
        "from": period.first.isoformat(),
        "to": period.last.isoformat(),
        "as_of": _instant(told.as_of_s) if told.as_of_s else None,
        "data": [{by: row.pop("name"), "turns": each.turns, **row} for row, each in zip(rows, told.rows, strict=True)],
    }


def _table(rows: Sequence[UsageRow], by: By) -> str:
    total = UsageRow(name="total", **{count: sum(getattr(row, count) for row in rows) for count in COUNTS})
    heads = ("TURNS", "FAILED", "CANCELLED", "TOKENS IN", "CACHED", "TOKENS OUT", "REASONING")
    return lay_out((by.upper(), *heads), map(_cells, [*rows, total]))


def _cells(row: UsageRow) -> tuple[str, ...]:
    numbers = (
        row.turns,
        row.failed,
        row.cancelled,
        row.input_tokens,
        row.cached_tokens,
        row.output_tokens,
        row.reasoning_tokens,
    )
    return (row.name or "(without a key)", *(f"{number:,}" for number in numbers))


def _day(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day such as 2026-11-30") from exc


def _instant(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
