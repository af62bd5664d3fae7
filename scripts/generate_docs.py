"""Write the files that follow from code: documents, dashboards and rules. `--check` only compares."""

# ruff: noqa: INP001  a script, not a package

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin

from kubernetes_files import FILES as KUBERNETES
from observability_files import FILES as OBSERVABILITY
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from sizing_document import sizing_document
from turn_document import turn_document

from kitemesh_cli.settings import BootstrapSettings, ClientSettings, DevSettings, KeysSettings
from kitemesh_gateway.settings import GatewaySettings
from kitemesh_model_runner.settings import RunnerSettings
from kitemesh_orchestrator.settings import OrchestratorSettings
from kitemesh_runtime.metrics import describe
from kitemesh_runtime.settings import PREFIX, Settings
from kitemesh_tool_executor.settings import ExecutorSettings

ROOT: Final = Path(__file__).resolve().parent.parent

SETTINGS_INTRO: Final = """\
# Settings

<!-- Written by `make docs` from the settings models. Do not edit. -->

Every process reads its settings from environment variables and from nowhere else. A variable that begins with
`KITEMESH_` and that no kitemesh process knows is an error, so a typing mistake never leaves a default in force; the
links that Kubernetes injects for Services are let through. All problems are reported at once and the process ends with
status 78; `make up` reports those of every process before it starts any. `kitemesh-<service> --check` prints what is
in effect, secrets masked and what is not the default marked, and checks the catalog.

A variable means the same in every process that reads it; a process that does not need it ignores it.
"""

SETTINGS_OUTRO: Final = """\
## For tests

`KITEMESH_FAILPOINT=name:action[:n][@file]` makes a process die, stop or stumble at a named place on the n-th pass.
`KITEMESH_AMBIGUITY=seed:percent` has so many calls of the store and the bus run and then be told as timed out.
Both are off unless set, and have no place in production.

## Without the prefix

| variable | read by | meaning |
|---|---|---|
| `OPENAI_API_KEY` | `kitemesh dev` | Adds the models of an OpenAI-compatible endpoint; never written to disk. |
| `OPENAI_BASE_URL` | `kitemesh dev` | That endpoint, `/v1` included; `https://api.openai.com/v1` when unset. |
| `OPENAI_MODEL` | `kitemesh dev` | The model that then answers for the group, the agent and by default. When unset: \
`gpt-4o-mini` if it is listed or nothing is, else the first listed that seems to chat. |
| what a catalog's `api_key.env` names | model-runner | The provider's key. |
"""

METRICS_INTRO: Final = """\
# Metrics

<!-- Written by `make docs` from the list in kitemesh_runtime.metrics. Do not edit. -->

Every service answers `GET /metrics` on its health port in the Prometheus text format. Labels come from closed sets: no
tenant, no id, no text from outside ever becomes one. The usual `process_*`, `python_info` and `python_gc_*` are there,
too. A service shows every name; those it has no part in stay at zero.

| name | kind | labels | meaning |
|---|---|---|---|
"""


class Section(NamedTuple):
    """The settings of one process.

    Attributes:
        base: Fields that it shares with this model, unchanged, are not repeated.

    """

    title: str
    model: type[Settings]
    base: type[Settings]


SECTIONS: Final = (
    Section("gateway", GatewaySettings, Settings),
    Section("orchestrator", OrchestratorSettings, Settings),
    Section("model-runner", RunnerSettings, Settings),
    Section("tool-executor", ExecutorSettings, Settings),
    Section("kitemesh bootstrap", BootstrapSettings, Settings),
    Section("kitemesh keys, kitemesh conversation, kitemesh tools", KeysSettings, Settings),
    Section("kitemesh approvals", ClientSettings, Settings),
    Section("kitemesh dev", DevSettings, BootstrapSettings),
)


def settings_document() -> str:
    """Return docs/settings.md."""
    parts = [SETTINGS_INTRO, "## Every process\n", _table(Settings.model_fields)]
    for section in SECTIONS:
        fields = section.model.model_fields
        own = {name: field for name, field in fields.items() if not _same(field, section.base.model_fields.get(name))}
        parts += [f"## {section.title}\n", _table(own)]
    return "\n".join([*parts, SETTINGS_OUTRO])


def metrics_document() -> str:
    """Return docs/metrics.md."""
    rows = []
    for metric in describe():
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "none"
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |\n")
    return METRICS_INTRO + "".join(rows)


DOCUMENTS: Final = {
    "settings.md": settings_document,
    "metrics.md": metrics_document,
    "turn.md": turn_document,
    "sizing.md": sizing_document,
}

FILES: Final = {f"docs/{name}": write for name, write in DOCUMENTS.items()} | OBSERVABILITY | KUBERNETES
"""Everything that is written, by its place in the repository."""


def _same(field: FieldInfo, other: FieldInfo | None) -> bool:
    return other is not None and (field.default, field.description) == (other.default, other.description)


def _table(fields: dict[str, FieldInfo]) -> str:
    rows = [
        f"| `{PREFIX}{name.upper()}` | {_kind(field)} | {_default(field)} | {field.description} |"
        for name, field in fields.items()
    ]
    return "\n".join(["| variable | value | default | meaning |", "|---|---|---|---|", *rows]) + "\n"


def _kind(field: FieldInfo) -> str:
    annotation: Any = field.annotation
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    names = {SecretStr: "secret", Path: "path", str: "text", int: "integer", float: "number", bool: "true or false"}
    return " ".join([names[annotation], *_bounds(field.metadata)])


def _bounds(metadata: Sequence[Any]) -> Iterator[str]:
    found = {name: getattr(each, name) for each in metadata for name in ("ge", "gt", "le", "lt") if hasattr(each, name)}
    low = str(found["ge"]) if "ge" in found else f"above {found['gt']:g}" if "gt" in found else ""
    high = f"{found['le']}" if "le" in found else f"below {found['lt']}" if "lt" in found else ""
    if low and high:
        yield f"{low} to {high}"
    elif low or high:
        yield low or high


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be set"
    value = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    return f"`{value}`" if str(value) else "empty"


def main() -> int:
    """Write the documents, or with `--check` name those that differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a document differs")
    check = parser.parse_args().check
    stale = [name for name, write in FILES.items() if _read(ROOT / name) != write()]
    for name in stale:
        if not check:
            (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / name).write_text(FILES[name](), encoding="utf-8")
        sys.stdout.write(f"{name} {'differs; run `make docs`' if check else 'written'}\n")
    return 1 if check and stale else 0


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
