"""What the verbs are told, and by whom: the environment, or the cluster that runs from a data folder here."""

from collections.abc import Mapping
from typing import Annotated, Final, TypeVar

from pydantic import Field, SecretStr

from kitemesh_cli.data_folder import DataFolder, read_environment, shown
from kitemesh_cli.dev_lock import holder
from kitemesh_cli.failures import Failed
from kitemesh_contracts.topology import OUT_MAX_BYTES
from kitemesh_runtime.settings import PREFIX, OutMaxBytes, Settings, load

DEV_PORT: Final = 8002
DEV_TENANT: Final = "dev"
DEV_SCOPES: Final = "chat,approve"
DEV_DRAIN_S: Final = 5.0


class KeysSettings(Settings):
    """Settings of `kitemesh keys`, `kitemesh conversation`, `kitemesh tools` and `kitemesh knowledge`."""

    key_pepper: SecretStr = Field(
        SecretStr(""), description="Secret under which API keys are digested; the same for every gateway."
    )
    anonymous_tenant: str = Field(
        "", description="Tenant of requests without a credential; refused when empty.", pattern=r"^[A-Za-z0-9_-]{0,64}$"
    )


class ClientSettings(Settings):
    """Settings of `kitemesh approvals`, `dead`, `doctor` and `status`, which ask a gateway."""

    url: str = Field(
        f"http://127.0.0.1:{DEV_PORT}",
        description="The gateway; that of the cluster that runs here, if one does, when unset.",
        pattern=r"^https?://\S+$",
    )
    key: SecretStr = Field(
        SecretStr(""), description="The API key to ask with; that of the cluster that runs here when empty."
    )


class BootstrapSettings(Settings):
    """Settings of `kitemesh bootstrap`."""

    replicas: Annotated[int, Field(ge=1, le=5, description="Copies of each stream: 1 on one machine, else 3.")] = 1
    turn_queue_max: Annotated[
        int, Field(ge=1, le=10_000_000, description="Accepted turns that may wait; more are answered 429.")
    ] = 10_000
    out_max_bytes: OutMaxBytes = OUT_MAX_BYTES
    retention_days: Annotated[
        int,
        Field(
            ge=1,
            le=3650,
            description="Days that turns and idle conversations are kept, of tenants of which nothing else is said;"
            " once set, bootstrap keeps the default tenant's record at it.",
        ),
    ] = 30


class DevSettings(BootstrapSettings):
    """Settings of `kitemesh dev`; it hands the services everything else that is set."""

    host: str = Field("127.0.0.1", description="Address that the gateway listens on.")
    port: Annotated[int, Field(ge=0, le=65535, description="The gateway's port; 0 takes a free one.")] = DEV_PORT
    key_pepper: SecretStr = Field(SecretStr(""), description="Kept in `.data/pepper` when empty.")
    anonymous_tenant: str = Field(
        DEV_TENANT,
        description="Tenant of the development key, and of requests without one; those are refused when it is empty or,"
        " unless it is set, when KITEMESH_HOST is not loopback.",
        pattern=r"^[\w-]{0,64}$",
    )
    anonymous_agent: str = Field(
        "", description="Agent that answers where a request names none; `assistant`, if the catalog has it, when empty."
    )
    anonymous_scopes: str = Field(
        DEV_SCOPES,
        description="What requests without a credential may do: chat, approve, admin, separated by commas.",
        pattern=r"^(chat|approve|admin)(,(chat|approve|admin))*$",
    )
    drain_s: Annotated[
        float, Field(ge=0, le=3600, description="Seconds that running work may take to finish on Ctrl-C.")
    ] = DEV_DRAIN_S


MODELS: Final[tuple[type[Settings], ...]] = (DevSettings, BootstrapSettings, KeysSettings, ClientSettings)

S = TypeVar("S", bound=Settings)

_PLACE: Final = tuple(PREFIX + name for name in ("NATS_URL", "MONGO_URL", "MONGO_DATABASE", "KEY_PEPPER"))


def effective_environment(folder: DataFolder, environ: Mapping[str, str]) -> dict[str, str]:
    """Complete the environment with what the cluster that runs from the folder left in its `env` file.

    The file is not used at all when the environment names another server, database or pepper than the file does: half
    of each would be a third installation.
    """
    effective = dict(environ)
    if holder(folder.lock) is None:
        return effective
    kept = read_environment(folder.environment)
    if any(environ.get(name, kept.get(name)) != kept.get(name) for name in _PLACE):
        return effective
    return {**kept, **effective}


def tenant_of(named: str | None, settings: KeysSettings, folder: DataFolder) -> str:
    """Return the tenant that was named, else the anonymous one.

    Raises:
        Failed: There is neither.

    """
    tenant = named or settings.anonymous_tenant
    if tenant:
        return tenant
    if holder(folder.lock) is None and "mongo_url" not in settings.model_fields_set:
        raise Failed(
            f"nothing runs from {shown(folder.root)}; `make up`, or name servers with KITEMESH_MONGO_URL and --tenant"
        )
    raise Failed("name the tenant: --tenant T")


def load_settings(model: type[S], folder: DataFolder, environ: Mapping[str, str]) -> S:
    """Read a verb's settings.

    Raises:
        SettingsError: With every problem found.

    """
    return load(model, effective_environment(folder, environ))
