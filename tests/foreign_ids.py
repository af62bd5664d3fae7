"""Every place of the API that takes an id, found in its OpenAPI document, and requests that put one there."""

import copy
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from cluster import GROUP, Cluster, Reply
from kitemesh_gateway.openapi import document

DOCUMENT = document("0")
ENDLESS = ("streamEvents",)
"""Their answers have no end; what they tell to whom is held against them elsewhere."""

_AN_ID = re.compile(r"(^|_)ids?$|Ids?$")
_IN_PARAMETER = re.compile(r"(^|_)id$|^cursor$|^Last-Event-ID$|^Idempotency-Key$")
_NOBODY = "00000000-0000-4000-8000-000000000000"
_SAID: Any = {"model": GROUP, "messages": [{"role": "user", "content": "@echo x"}], "stream": False}
_ANSWER = {"type": "tool-delete_record", "toolCallId": _NOBODY, "state": "approval-responded"}

BODIES: Mapping[str, Any] = {
    "createChatCompletion": _SAID,
    "resumeChatCompletion": {"model": GROUP, "approval_id": _NOBODY, "approved_tool_execution_ids": []},
    "createRunChat": {"messages": [{"role": "user", "parts": [{"type": "text", "text": "@echo x"}]}], "stream": False},
    "createRunCompletion": _SAID,
    "createKernelChat": _SAID,
    "askAgent": {"message": "@echo x"},
    "createExecution": _SAID,
    "decideApproval": {"decisions": [{"tool_execution_id": _NOBODY, "approved": True}]},
    "changeConversation": {"title": "taken"},
    "addDocument": {"name": "taken", "text": "taken"},
    "createKey": {},
    "changeKey": {"name": "taken"},
    "rotateKey": {},
    "putTenant": {},
}
"""The smallest body of each operation that takes one."""

CREATING = frozenset(BODIES) - {
    "resumeChatCompletion",
    "decideApproval",
    "changeConversation",
    "changeKey",
    "rotateKey",
    "putTenant",
}
"""What these name may be made by them, under the caller's own tenant."""


class Place(NamedTuple):
    """Where an id can stand.

    Attributes:
        where: `path`, `query`, `header` or `body`.
        field: Its name; of a body the way to it.

    """

    operation: str
    method: str
    path: str
    where: str
    field: tuple[str | int, ...]


def places() -> list[Place]:
    """Return every place; those that may make what they name come last."""
    found = [place for path, methods in DOCUMENT["paths"].items() for place in _of_path(path, methods)]
    return sorted(found, key=lambda place: place.operation in CREATING)


def ask(cluster: Cluster, place: Place, id_: str, key: str) -> Reply:
    """Send a request with an id in a place."""
    path, headers, body = place.path, {}, copy.deepcopy(BODIES.get(place.operation))
    if place.where == "path":
        path = path.replace("{id}", quote(id_, safe=""))
    if place.where == "query":
        path += "?" + urlencode({str(place.field[0]): id_})
    if place.where == "header":
        headers[str(place.field[0])] = id_
    if place.where == "body":
        _put(body, place.field, id_)
    # A path that is not what is tried names something that everybody has.
    path = path.replace("{id}", "assistant" if "/agents/" in path else _NOBODY)
    return cluster.call(path, body, key=key, method=place.method, headers=headers)


def answer_of(conversation: str, approval: str, call: str) -> dict[str, Any]:
    """Return what a chat client sends to have a held call run."""
    part = {**_ANSWER, "toolCallId": call, "approval": {"id": approval, "approved": True}}
    return {"conversationId": conversation, "messages": [{"role": "assistant", "id": "a", "parts": [part]}]}


def _of_path(path: str, methods: Mapping[str, Any]) -> Iterator[Place]:
    for method, operation in methods.items():
        name = operation["operationId"]
        if name in ENDLESS:
            continue
        for each in operation.get("parameters", ()):
            if _IN_PARAMETER.search(each["name"]):
                yield Place(name, method.upper(), path, each["in"], (each["name"],))
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
        for field in _in_body(body) if body else ():
            yield Place(name, method.upper(), path, "body", field)


def _in_body(schema: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str | int, ...]]:
    """Find the ways to fields that are named like ids."""
    if "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
    for each in schema.get("anyOf", ()):
        yield from _in_body(each, depth)
    if isinstance(schema.get("items"), dict):
        yield from ((0, *rest) for rest in _in_body(schema["items"], depth))
    for name, each in schema.get("properties", {}).items():
        if _AN_ID.search(name):
            yield (name, 0) if _is_list(each) else (name,)
        elif depth < 3:
            yield from ((name, *rest) for rest in _in_body(each, depth + 1) if rest)


def _is_list(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "array" or any(each.get("type") == "array" for each in schema.get("anyOf", ()))


def _put(body: Any, field: tuple[str | int, ...], id_: str) -> None:
    """Put an id into a body, with whatever is above it."""
    for step, following in itertools.pairwise(field):
        empty: Any = [] if isinstance(following, int) else {}
        if isinstance(step, int):
            if not body:
                body.append(empty)
            body = body[step]
        else:
            body = body.setdefault(step, empty)
    last = field[-1]
    if isinstance(last, int):
        body.append(id_)
    else:
        body[last] = id_
