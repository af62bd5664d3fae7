"""Held calls in the stores' twins, and a bus that keeps what it was sent."""

from types import SimpleNamespace
from typing import Any, cast

from kitemesh_contracts import canonical, codec
from kitemesh_contracts.commands import ApplyHold
from kitemesh_contracts.errors import ErrorCode, Unavailable
from kitemesh_gateway.auth import Principal
from kitemesh_runtime.bus import Bus, Receipt
from kitemesh_runtime.call_sentences import describe_call
from kitemesh_runtime.catalog import Catalog
from kitemesh_runtime.catalog_file import CatalogHandle
from kitemesh_runtime.holds import HeldCall, Hold

TENANT = "acme"
HOLD = "11111111-1111-5111-8111-111111111111"
CALL, OTHER_CALL = "22222222-2222-5222-8222-222222222222", "33333333-3333-5333-8333-333333333333"
TURN = "01990000-0000-7000-8000-000000000001"

CATALOG_DATA: dict[str, Any] = {
    "providers": {"p": {"kind": "scripted"}},
    "models": {"m": {"provider": "p"}},
    "tools": {
        "refund": {
            "kind": "http",
            "method": "POST",
            "url": "https://shop.example/refunds",
            "parameters": {
                "type": "object",
                "properties": {"amount": {"type": "integer", "minimum": 1}, "pin": {"type": "string"}},
                "required": ["amount"],
            },
            "secret_arguments": ["pin"],
        },
    },
    "agents": {"clerk": {"model": "m", "tools": ["refund"]}},
    "policies": [
        {"tools": ["refund"], "when": [{"argument": "amount", "op": "gt", "value": 1000}], "then": "deny"},
        {"tools": ["refund"], "then": "hold"},
    ],
}
CATALOG = Catalog.model_validate(CATALOG_DATA)


class Outbox:
    """Takes what is sent; the test plays the orchestrator."""

    def __init__(self) -> None:
        self.is_down = False
        self.connected = True
        self.sent: list[tuple[str, str, Any]] = []

    async def send(self, subject: str, payload: bytes, *, msg_id: str, timeout_s: float = 2.5) -> Receipt:
        if self.is_down:
            raise Unavailable(ErrorCode.BUS_DOWN, "down")
        self.sent.append((subject, msg_id, codec.decode(codec.CONTROL, payload)))
        return Receipt(len(self.sent), duplicate=False)

    @property
    def orders(self) -> list[ApplyHold]:
        return [message for _, _, message in self.sent]

    @property
    def msg_ids(self) -> list[str]:
        return [msg_id for _, msg_id, _ in self.sent]

    def as_bus(self) -> Bus:
        return cast("Bus", self)


def handle(catalog: Catalog = CATALOG) -> CatalogHandle:
    return cast("CatalogHandle", SimpleNamespace(current=catalog))


def person(*scopes: str, key: str = "key-1", tenant: str = TENANT) -> Principal:
    return Principal(tenant=tenant, key=key, scopes=frozenset(scopes or ("approve",)))


def held_call(call: str = CALL, arguments: str = '{"amount":5,"pin":"1234"}', tool: str = "refund") -> HeldCall:
    definition = CATALOG.tools[tool]
    described = describe_call(tool, definition, arguments)
    return HeldCall(
        id=call,
        name=tool,
        version=definition.version(),
        effect=definition.effects(),
        arguments=arguments,
        sha256=canonical.sha256(arguments),
        sentence=described.sentence,
        shown=described.shown,
    )


def hold(hold_id: str = HOLD, *, tenant: str = TENANT, **fields: Any) -> Hold:
    values: dict[str, Any] = {
        "turn": TURN,
        "step": 1,
        "model": "agent:clerk",
        "agent": "clerk",
        "calls": (held_call(), held_call(OTHER_CALL, '{"amount":7}')),
        "conversation": "conv",
        **fields,
    }
    return Hold(id=hold_id, tenant=tenant, **values)
