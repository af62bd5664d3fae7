"""Tries what services are told: signs in as each of them, and looks whether it may do what this release needs.

Nothing is stored, nothing taken from a queue and nobody is told anything.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kitemesh_cli.access_files import environment_file
from kitemesh_cli.data_folder import DataFolder, read_environment
from kitemesh_cli.doctor_facts import AccessFacts, Reach
from kitemesh_cli.doctor_probe_bus import CONNECT_S, reach_of
from kitemesh_cli.doctor_store_mongo import SELECT_S, TIMEOUT_S
from kitemesh_cli.doctor_store_mongo import reach_of as store_reach_of
from kitemesh_cli.failures import Failed
from kitemesh_contracts.errors import Bug, KitemeshError, Unavailable
from kitemesh_contracts.permissions import SERVICES, ServiceName, bus_rights, inbox_prefix
from kitemesh_contracts.topology import StreamSpec
from kitemesh_runtime.bus_nats import NatsBus, open_bus
from kitemesh_runtime.driver_mongo import open_database
from kitemesh_runtime.roles_mongo import ROLES
from kitemesh_runtime.settings import Settings
from kitemesh_runtime.topology_plan import overlap

_ASK_S: Final = 1.0
_TRY_S: Final = 6.0
"""For all that one service may do on NATS."""
_NOBODY: Final = "doctor"
"""What stands for each wildcard: no turn, consumer or stream is called so."""

_URLS: Final = ("KITEMESH_NATS_URL", "KITEMESH_MONGO_URL")
_WRITES: Final = "`kitemesh bootstrap --access {}` writes them"
_LOOKS: Final = ("$JS.API.STREAM.INFO.", "$JS.API.CONSUMER.INFO.", "$JS.API.CONSUMER.NAMES.", "$JS.API.STREAM.LIST")
"""Questions that change nothing."""


def find_variables(folder: Path | None, data: DataFolder) -> dict[ServiceName, Mapping[str, str]] | None:
    """Return what each service is told of its servers; `None` when nobody says.

    Raises:
        Failed: The folder that was named does not hold it.

    """
    if folder is not None:
        files = {service: environment_file(folder, service) for service in SERVICES}
        if missing := [path.name for path in files.values() if not path.exists()]:
            raise Failed(f"{folder} has no {', '.join(missing)}; {_WRITES.format(folder)}")
        named: dict[ServiceName, Mapping[str, str]] = {
            service: read_environment(path) for service, path in files.items()
        }
        for service, variables in named.items():
            # What is not said there would be tried with the operator's own users, who may do everything.
            if lacking := [name for name in _URLS if not variables.get(name)]:
                raise Failed(f"{files[service]} has no {', '.join(lacking)}; {_WRITES.format(folder)}")
        return named
    told: dict[ServiceName, Mapping[str, str]] = {
        service: read_environment(data.environment_of(service)) for service in SERVICES
    }
    return told if all(told.values()) else None


async def look_at_access(
    settings: Settings, variables: Mapping[ServiceName, Mapping[str, str]], wanted: Sequence[StreamSpec]
) -> list[AccessFacts]:
    """Sign in as each service, all at once."""
    return await asyncio.gather(*(_look(settings, service, told, wanted) for service, told in variables.items()))


async def _look(
    settings: Settings, service: ServiceName, told: Mapping[str, str], wanted: Sequence[StreamSpec]
) -> AccessFacts:
    nats = told.get("KITEMESH_NATS_URL", settings.nats_url.get_secret_value())
    mongo = told.get("KITEMESH_MONGO_URL", settings.mongo_url.get_secret_value())
    (bus, denied), (store, lacking) = await asyncio.gather(
        _try_bus(service, nats, wanted), _try_store(settings, service, mongo)
    )
    return AccessFacts(service=service, bus=bus, denied=denied, store=store, lacking=lacking)


async def _try_bus(service: ServiceName, url: str, wanted: Sequence[StreamSpec]) -> tuple[Reach, list[str]]:
    refused: list[str] = []

    def count(kind: str) -> None:
        if kind == "permission":
            refused.append(kind)

    rights = bus_rights(service)
    denied: list[str] = []
    opened = open_bus(
        url, name="kitemesh-doctor", inbox_prefix=inbox_prefix(service), connect_timeout_s=CONNECT_S, on_error=count
    )
    try:
        async with asyncio.timeout(_TRY_S), opened as bus:
            for subject in rights.subscribe:
                # One after the other: the server's refusal does not come back as an answer.
                before = len(refused)
                subscription = await bus.subscribe(subject, _ignore)
                await bus.barrier()
                await subscription.stop()
                if len(refused) > before:
                    denied.append(f"hear {subject}")
            may = await asyncio.gather(*(_may_publish(bus, subject, wanted) for subject in rights.publish))
            denied += [f"publish to {subject}" for subject, each in zip(rights.publish, may, strict=True) if not each]
    except Unavailable as exc:
        return reach_of(exc), []
    except (TimeoutError, ValueError):
        return "unreachable", []
    except Bug:
        # Its own inbox is what every answer comes to.
        return "", [f"hear {inbox_prefix(service)}.>"]
    return "", denied


def _ignore(_subject: str, _payload: bytes) -> None:
    """Hear nothing: that it may be heard was the question."""


async def _may_publish(bus: NatsBus, subject: str, wanted: Sequence[StreamSpec]) -> bool:
    """Tell whether the server lets this user publish there; what cannot be tried without effect may."""
    concrete = ".".join(_NOBODY if token in ("*", ">") else token for token in subject.split("."))
    if subject.startswith(_LOOKS):
        return await bus.may_ask(concrete, timeout_s=_ASK_S)
    if any(
        spec.storage == "file" and overlap(subject, each) and not each.startswith("$")
        for spec in wanted
        for each in spec.subjects
    ):
        return await bus.may_store(concrete, timeout_s=_ASK_S)
    return True


async def _try_store(settings: Settings, service: ServiceName, url: str) -> tuple[Reach, list[str]]:
    opened = open_database(
        url,
        name=settings.mongo_database,
        driver=settings.mongo_driver,
        timeout_s=TIMEOUT_S,
        select_timeout_s=SELECT_S,
        max_connections=1,
    )
    try:
        async with opened as database:
            answer = await database.command({"connectionStatus": 1, "showPrivileges": True})
    except KitemeshError as exc:
        return store_reach_of(exc), []
    said = answer["authInfo"]
    if not said["authenticatedUsers"]:
        # A server that knows no users lets everybody do everything, and one that does lets nobody else.
        return ("refused" if "@" in url else ""), []
    return "", _lacking(settings.mongo_database, service, said["authenticatedUserPrivileges"])


def _lacking(database: str, service: ServiceName, privileges: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"{action} in {collection}"
        for collection, actions in ROLES[service].items()
        for action in actions
        if not any(action in each["actions"] and _covers(each["resource"], database, collection) for each in privileges)
    ]


def _covers(resource: Mapping[str, Any], database: str, collection: str) -> bool:
    return bool(resource.get("anyResource")) or (
        resource.get("db") in ("", database) and resource.get("collection") in ("", collection)
    )
