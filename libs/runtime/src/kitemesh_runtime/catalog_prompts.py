"""What an agent's prompt says of the values that requests give for its places. Pure; see `catalog_references`.

A prompt without a schema has no places: its braces are text.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from kitemesh_runtime import templates
from kitemesh_runtime.schemas import check


def find_in_prompt(place: str, prompt: object, schema: Mapping[str, Any]) -> Iterator[str]:
    """Return a sentence for each mistake in the schema, and for each place of the prompt that it has no value for."""
    where = f"{place}.headers_schema"
    yield from (f"{where}: not a JSON Schema: {each.replace('; ', ', ')}" for each in check(schema))
    if schema.get("type") != "object":
        yield f"{where}: type must be object"
    if not isinstance(prompt, str):
        return
    if not templates.is_whole(prompt):
        yield f"{place}.prompt: every {{{{ needs a value's name and }}}}, without blanks"
    properties = schema.get("properties")
    known = properties if isinstance(properties, Mapping) else {}
    for name in dict.fromkeys(templates.names(prompt)):
        if name.strip() == name != "" and name not in known:
            yield f"{place}.prompt: {name!r} is no property of headers_schema"
