"""What `kitemesh bootstrap` does for retention: the installation's days, and the dates of an earlier release."""

from typing import Final

from msgspec.structs import replace

from kitemesh_cli.settings import BootstrapSettings
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.moves_mongo import date_audit, date_rest
from kitemesh_runtime.stores_mongo import open_stores
from kitemesh_runtime.tenancy import DEFAULT_TENANT, Kind, TenantRecord

KINDS: Final[tuple[Kind, ...]] = ("turns", "conversations")
"""What KITEMESH_RETENTION_DAYS is about."""


async def ensure_retention(settings: BootstrapSettings, database: Database) -> list[str]:
    """Make the default record say what is set, if anything is, and date old rows; return what was done.

    What is not set here stays as `kitemesh tenants` left it.
    """
    done: list[str] = []
    if dated := await date_audit(database):
        done.append(f"dated {dated} rows of the audit")
    if await date_rest(database):
        done.append("what else has no date gets it an hour after the first orchestrator has started")
    if "retention_days" not in settings.model_fields_set:
        return done
    async with open_stores(database) as stores:
        record = await stores.tenants.get(DEFAULT_TENANT) or TenantRecord(id=DEFAULT_TENANT)
        days = {**record.retention_days, **dict.fromkeys(KINDS, settings.retention_days)}
        if days != record.retention_days:
            await stores.tenants.put(replace(record, retention_days=days))
            done += [f"changed retention of {kind} to {settings.retention_days} days" for kind in KINDS]
    return done
