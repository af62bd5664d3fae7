"""`/docs`: the OpenAPI document as one page of HTML, without scripts and without anything from elsewhere. Pure."""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from textwrap import dedent
from typing import Any, Final

Schema = Mapping[str, Any]

_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b;background:#fff}
h1,h2,h3{line-height:1.2}h2{margin-top:3rem;border-top:1px solid #ccc;padding-top:1.5rem}
code{font:.9em ui-monospace,monospace;background:#f2f2f2;padding:.1em .3em;border-radius:.2em}
pre{background:#f2f2f2;padding:.8rem;border-radius:.3rem;overflow-x:auto}pre code{padding:0}
h1,h2,h3,p,li{overflow-wrap:anywhere}
.wide{overflow-x:auto;margin:.5rem 0 1rem}table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #ddd}td:last-child{min-width:11rem}
.method{text-transform:uppercase;font-weight:700;color:#0a5}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}code,pre{background:#2a2a2a}th,td{border-color:#333}
a{color:#8bf}}
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

SECURITY_POLICY: Final = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'"
"""What the page needs, as a `Content-Security-Policy`."""

_CODE: Final = re.compile(r"`([^`]+)`")
_STRONG: Final = re.compile(r"\*\*([^*]+)\*\*")
_COPIED: Final = "    "
_BOUNDS: Final[Mapping[str, str]] = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "pattern": "matches `{}`",
}


def render(document: Schema) -> str:
    """Render an OpenAPI document."""
    info = document["info"]
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    described = "".join(_operation(*each) for each in operations)
    schemas = document["components"]["schemas"]
    index = [
        *(_group(tag["name"], tag["description"], operations) for tag in document["tags"]),
        _link("errors", "Errors"),
        _link("schemas", "Schemas") + ": " + ", ".join(_link(name, name) for name in schemas),
    ]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{title}</h1>{_paragraphs(info['description'])}"
        f"<nav><ul>{''.join(f'<li>{each}</li>' for each in index)}"
        '<li><a href="/openapi.json">openapi.json</a></li></ul></nav>'
        f'{described}<h2 id="errors">Errors</h2>{_errors(document["x-error-codes"])}'
        f'<h2 id="schemas">Schemas</h2>{"".join(_schema(*each) for each in schemas.items())}</body></html>'
    )


def _group(tag: str, about: str, operations: Iterable[tuple[str, str, Schema]]) -> str:
    """Lead to the operations of one family."""
    links = (
        f"<li>{_link(operation['operationId'], operation['summary'])} {_call(path, method)}</li>"
        for path, method, operation in operations
        if tag in operation["tags"]
    )
    return f"<strong>{_text(tag)}</strong>: {_text(about)}<ul>{''.join(links)}</ul>"


def _operation(path: str, method: str, operation: Schema) -> str:
    parts = [
        f'<h2 id="{escape(operation["operationId"])}">{_call(path, method)}</h2>',
        f"<p><strong>{_text(operation['summary'])}.</strong> {_text(operation.get('description', ''))}</p>",
    ]
    parameters = operation.get("parameters", [])
    if parameters:
        named = ((_code(each["name"]), _text(each["description"])) for each in parameters)
        parts.append(_table(("Parameter", "Meaning"), named))
    if "requestBody" in operation:
        parts.append(f"<p>Body: {_contents(operation['requestBody'])}</p>")
    rows = (
        (_code(status), _text(answer["description"]), _contents(answer))
        for status, answer in operation["responses"].items()
    )
    parts.append(_table(("Status", "Meaning", "Body"), rows))
    parts.append(_table(("Header of the answer", "With", "Meaning"), _headers(operation["responses"])))
    return "".join(parts)


def _headers(answers: Schema) -> Iterable[tuple[str, str, str]]:
    """Describe each header once, with the statuses that it comes with."""
    statuses: dict[tuple[str, str], list[str]] = {}
    for status, answer in answers.items():
        for name, header in answer.get("headers", {}).items():
            statuses.setdefault((name, header["description"]), []).append(status)
    for (name, description), having in statuses.items():
        yield _code(name), "every status" if len(having) == len(answers) else ", ".join(having), _text(description)


def _errors(codes: Iterable[Schema]) -> str:
    rows = (
        (
            _code(each["code"]),
            str(each["status"]),
            "" if each["logged_as"] == each["code"] else _code(each["logged_as"]),
            _text(each["advice"]),
        )
        for each in codes
    )
    words = "`error.code` says what happened. Logs and metrics have the same word, or the one in the third column."
    return f"<p>{_text(words)}</p>" + _table(("Code", "Status", "In logs and metrics", "What to do"), rows)


def _schema(name: str, schema: Schema) -> str:
    required = schema.get("required", [])
    rows = (
        (_code(field) + ("" if field in required else " (optional)"), _type(part), _notes(part))
        for field, part in schema.get("properties", {}).items()
    )
    heading = f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{_text(schema.get("description", ""))}</p>'
    return heading + _table(("Field", "Type", "Notes"), rows)


def _contents(holder: Schema) -> str:
    return ", ".join(
        _code(media) + (f" {_type(_told(content['schema']))}" if "schema" in content else "")
        for media, content in holder.get("content", {}).items()
    )


def _told(schema: Schema) -> Schema:
    """Return what a body says; of an event, its data."""
    data: Schema = schema.get("properties", {}).get("data", {})
    data = data.get("anyOf", [data])[0]
    told: Schema = data.get("contentSchema", schema)
    return told


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return _link(name, name)
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(_type(each) for each in schema[key])
    if "const" in schema:
        return _code(_value(schema["const"]))
    if "enum" in schema:
        return " or ".join(_code(_value(each)) for each in schema["enum"])
    if schema.get("type") == "array":
        return f"array of {' and '.join(map(_type, schema.get('prefixItems') or [schema.get('items', {})]))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return escape(schema.get("type", "anything"))


def _notes(schema: Schema) -> str:
    notes = [_text(schema["description"].rstrip("."))] if "description" in schema else []
    notes += [_text(words.format(schema[bound])) for bound, words in _BOUNDS.items() if bound in schema]
    for key in ("anyOf", "oneOf"):
        notes += [note for note in map(_notes, schema.get(key, [])) if note]
    if isinstance(schema.get("items"), dict):
        notes += [f"each {note}" for note in [_notes(schema["items"])] if note]
    return "; ".join(notes)


def _table(heads: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _paragraphs(text: str) -> str:
    return "".join(
        f"<pre><code>{escape(dedent(part))}</code></pre>" if part.startswith(_COPIED) else f"<p>{_text(part)}</p>"
        for part in text.split("\n\n")
    )


def _text(text: str) -> str:
    return _STRONG.sub(r"<strong>\1</strong>", _CODE.sub(r"<code>\1</code>", escape(text)))


def _call(path: str, method: str) -> str:
    return f'<span class="method">{escape(method)}</span> {_code(path)}'


def _link(anchor: str, text: str) -> str:
    return f'<a href="#{escape(anchor)}">{escape(text)}</a>'


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
