"""Settings: one frozen model for each service, read from `KITEMESH_*` variables and from nowhere else.

Every mistake is reported at once. A variable of our prefix that no kitemesh service knows is a mistake too, so a typo
does not silently keep a default.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo

from kitemesh_runtime.masking import mask_url
from kitemesh_runtime.problems import describe

PREFIX: Final = "KITEMESH_"
TOOL_PREFIX: Final = "KITEMESH_TOOL_"
"""Variables that are for the operator's Python tools and for no service."""

# Kubernetes injects these for each Service in the namespace, one of which may be called kitemesh-….
_SERVICE_LINK: Final = re.compile(r"\AKITEMESH_[A-Z0-9_]*(SERVICE_HOST|SERVICE_PORT[A-Z0-9_]*|PORT(_[0-9]+_.*)?)\Z")

KNOWN: Final = frozenset(
    {
        "ADDRESS_LOOKUPS_PER_S",
        "AMBIGUITY",
        "ANONYMOUS_AGENT",
        "ANONYMOUS_SCOPES",
        "ANONYMOUS_TENANT",
        "BODY_TIMEOUT_S",
        "CATALOG",
        "DRAIN_S",
        "FAILPOINT",
        "FIRST_EVENT_S",
        "HEALTH_HOST",
        "HEALTH_PORT",
        "HOST",
        "KEY",
        "KEY_PEPPER",
        "LIMIT_BURST_S",
        "LOG_FORMAT",
        "LOG_LEVEL",
        "MAX_BODY_BYTES",
        "MAX_FILE_BODY_BYTES",
        "MAX_PREDICTED_WAIT_S",
        "MAX_STREAMS",
        "MAX_UNSENT_BYTES",
        "MAX_WAITING",
        "MONGO_DATABASE",
        "MONGO_DRIVER",
        "MONGO_URL",
        "NATS_URL",
        "OUT_MAX_BYTES",
        "PING_S",
        "POOL",
        "PORT",
        "REPLICA",
        "REPLICAS",
        "RETENTION_DAYS",
        "SLOTS",
        "SLOW_CLIENT_S",
        "SWEEP_S",
        "TRUSTED_PROXIES",
        "TURN_BUDGET_S",
        "TURN_QUEUE_MAX",
        "URL",
    },
)
"""Names, without the prefix, that some kitemesh process reads; a test keeps it equal to what the models declare."""


_PEPPER_HINT: Final = "must be set: at least 16 characters, the same for every gateway, e.g. `openssl rand -hex 32`"
_HINTS: Final = {"KEY_PEPPER": _PEPPER_HINT}
_ABSENT: Final = {"missing", "string_too_short", "too_short"}


OutMaxBytes = Annotated[
    int,
    Field(
        ge=16 * 1024 * 1024,
        le=1 << 40,
        description="NATS memory for the text of durable answers, by which streams are resumed: the same for bootstrap"
        " and orchestrators, which make the stream again when NATS lost it.",
    ),
]
"""Of `KM_OUT`."""


class SettingsError(Exception):
    """The environment does not make valid settings.

    Attributes:
        problems: One sentence each.

    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Settings(BaseModel):
    """What every service is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nats_url: SecretStr = Field(SecretStr("nats://127.0.0.1:4222"), description="NATS servers, comma-separated URLs.")
    mongo_url: SecretStr = Field(SecretStr("mongodb://127.0.0.1:27017"), description="MongoDB connection string.")
    mongo_database: str = Field(
        "kitemesh", description="Database that holds every collection.", pattern=r"^[\w-]{1,38}$"
    )
    mongo_driver: Literal["motor", "pymongo"] = Field("motor", description="Which driver opens the connection.")
    catalog: Path = Field(Path("catalog.yaml"), description="The catalog file; read again when it changes.")
    health_host: str = Field("127.0.0.1", description="Address of the health and metrics port.")
    health_port: Annotated[int, Field(ge=0, le=65535, description="Health and metrics port; 0 takes a free one.")] = (
        9090
    )
    drain_s: Annotated[
        float, Field(ge=0, le=3600, description="Seconds that running work may take to finish on SIGTERM.")
    ] = 25.0
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level printed.")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto` is JSON unless a person watches."
    )
    replica: str = Field(
        "", description="Name of this process among its peers; made up when empty.", pattern=r"^[A-Za-z0-9_-]{0,40}$"
    )

    @field_validator("nats_url")
    @classmethod
    def _name_nats(cls, value: SecretStr) -> SecretStr:
        for url in value.get_secret_value().split(","):
            if not url.strip().startswith(("nats://", "tls://")):
                raise ValueError("must be nats:// or tls:// URLs, comma-separated")
            _check_hosts(url)
        return value

    @field_validator("mongo_url")
    @classmethod
    def _name_mongo(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("mongodb://", "mongodb+srv://")):
            raise ValueError("must be a mongodb:// or mongodb+srv:// URL")
        _check_hosts(value.get_secret_value())
        return value


def _check_hosts(url: str) -> None:
    """Refuse what a driver would misread: a password that was not encoded ends the host's name anywhere."""
    rest = url.partition("://")[2].partition("?")[0]
    authority, _, path = rest.partition("/")
    try:
        for host in authority.rpartition("@")[2].split(","):
            _ = urlsplit(f"//{host}").port
    except ValueError:
        path = "@"
    if "@" in path:
        raise ValueError("its hosts cannot be read: write user and password percent-encoded, and ports as numbers")


S = TypeVar("S", bound=Settings)


def load(model: type[S], environ: Mapping[str, str]) -> S:
    """Read the settings of a service.

    Raises:
        SettingsError: With every problem found.

    """
    values: dict[str, str] = {}
    problems: list[str] = []
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable.startswith(TOOL_PREFIX):
            continue
        name = variable.removeprefix(PREFIX)
        if name.lower() in model.model_fields:
            # A link to a Service called kitemesh yields KITEMESH_PORT=tcp://…, which is nobody's setting.
            if not (_SERVICE_LINK.match(variable) and text.startswith("tcp://")):
                values[name.lower()] = text
        elif name not in KNOWN and not _SERVICE_LINK.match(variable):
            problems.append(f"{variable} is not a kitemesh setting")
    try:
        settings = model.model_validate(values)
    except ValidationError as exc:
        for problem in describe(model, exc):
            field = "_".join(problem.place).upper()
            hint = _HINTS.get(field) if problem.kind in _ABSENT else None
            problems.append(f"{PREFIX}{field}: {hint or problem.sentence}")
        raise SettingsError(sorted(problems)) from exc
    if problems:
        raise SettingsError(sorted(problems))
    return settings


def render(settings: Settings) -> str:
    """Print the effective settings, one `VARIABLE=value` a line: secrets masked, what is not the default marked."""
    return "\n".join(_line(settings, name, field) for name, field in type(settings).model_fields.items())


def _line(settings: Settings, name: str, field: FieldInfo) -> str:
    value, shown = getattr(settings, name), str(getattr(settings, name))
    if isinstance(value, SecretStr) and name.endswith("_url"):
        shown = mask_url(value.get_secret_value())
    line = f"{PREFIX}{name.upper()}={shown}"
    if field.is_required() or value == field.default:
        return line
    default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    return f"{line}   # default: {default if str(default) else 'empty'}"
