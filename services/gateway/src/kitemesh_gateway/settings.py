"""What the gateway is told."""

from typing import Annotated

from pydantic import Field, SecretStr

from kitemesh_runtime.settings import Settings

_ID_OR_EMPTY = r"^[A-Za-z0-9_-]{0,64}$"


class GatewaySettings(Settings):
    """Settings of the gateway."""

    host: str = Field("127.0.0.1", description="Address that clients connect to.")
    port: Annotated[int, Field(ge=0, le=65535, description="Port that clients connect to; 0 takes a free one.")] = 8002
    key_pepper: SecretStr = Field(
        description="Secret under which API keys are digested, at least 16 characters; the same for every gateway.",
        min_length=16,
    )
    anonymous_tenant: str = Field(
        "", description="Tenant of requests without a credential; refused when empty.", pattern=_ID_OR_EMPTY
    )
    anonymous_agent: str = Field(
        "", description="Agent that answers requests without a credential where they name none.", pattern=_ID_OR_EMPTY
    )
    anonymous_scopes: str = Field(
        "chat",
        description="What requests without a credential may do: chat, approve, admin, separated by commas.",
        pattern=r"^(chat|approve|admin)(,(chat|approve|admin))*$",
    )
    address_lookups_per_s: Annotated[
        float,
        Field(ge=0, le=100_000, description="Unknown keys that an address may try in a second; 0 sets no bound."),
    ] = 20.0
    trusted_proxies: Annotated[
        int,
        Field(ge=0, le=10, description="Proxies in front, whose entries in X-Forwarded-For tell the client's address."),
    ] = 0
    max_body_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024, description="Largest request body.")] = (
        1024 * 1024
    )
    max_file_body_bytes: Annotated[
        int, Field(ge=1024, le=64 * 1024 * 1024, description="Largest request body of the routes that take files.")
    ] = 16 * 1024 * 1024
    body_timeout_s: Annotated[float, Field(gt=0, le=300, description="Seconds that a request body may take.")] = 10.0
    first_event_s: Annotated[
        float, Field(gt=0, le=300, description="Seconds that a stream's status line waits for its first event.")
    ] = 10.0
    ping_s: Annotated[float, Field(ge=1, le=300, description="Longest silence on a stream, in seconds.")] = 15.0
    slow_client_s: Annotated[
        float, Field(ge=1, le=300, description="Longest time, in seconds, that a byte may wait for its client.")
    ] = 15.0
    max_unsent_bytes: Annotated[
        int, Field(ge=4096, le=64 * 1024 * 1024, description="Unsent bytes after which a stream gets no more events.")
    ] = 256 * 1024
    max_predicted_wait_s: Annotated[
        float,
        Field(gt=0, le=3600, description="Predicted wait for a model-runner, in seconds, beyond which turns get 429."),
    ] = 300.0
    limit_burst_s: Annotated[
        float, Field(ge=1, le=60, description="Seconds' worth of a limit per minute that may be used at once.")
    ] = 10.0
    turn_budget_s: Annotated[float, Field(ge=1, le=3600, description="Seconds that a whole turn may take.")] = 600.0
    max_streams: Annotated[
        int, Field(ge=1, le=1_000_000, description="Open turns, each as often as it is followed; more get 429.")
    ] = 5_000
