"""What `k8s` holds, as kubectl renders it; where there is no kubectl, as far as files tell without their patches."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

Document = dict[str, Any]

FOLDER: Final = Path(__file__).resolve().parent.parent / "k8s"
SERVICES: Final = ("gateway", "orchestrator", "model-runner", "tool-executor")
KUBECTL_MINOR: Final = 27
"""The oldest kubectl, 1.27, whose kustomize knows all that is used here."""


def _find_kubectl() -> str | None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return None
    told = subprocess.run([kubectl, "version", "--client", "--output", "json"], capture_output=True, check=True)
    minor = int(str(json.loads(told.stdout)["clientVersion"]["minor"]).rstrip("+"))
    return kubectl if minor >= KUBECTL_MINOR else None


KUBECTL: Final = _find_kubectl()
HOW: Final = "rendered" if KUBECTL else "only_read_for_there_is_no_kubectl"
"""How the documents came to be, for the names of tests."""


@cache
def documents(name: str) -> list[Document]:
    """Return what a folder under `k8s` says."""
    return documents_of(FOLDER / name)


def documents_of(folder: Path) -> list[Document]:
    """Return what any folder of a kustomization says."""
    return list(_rendered(folder) if KUBECTL else _read(folder))


def _rendered(folder: Path) -> Iterator[Document]:
    assert KUBECTL is not None
    done = subprocess.run([KUBECTL, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return iter(yaml.load_all(done.stdout, Loader=yaml.CSafeLoader))


def _read(path: Path) -> Iterator[Document]:
    if path.is_file():
        yield from yaml.safe_load_all(path.read_text())
        return
    kustomization = yaml.safe_load((path / "kustomization.yaml").read_text())
    for each in [*kustomization.get("resources", ()), *kustomization.get("components", ())]:
        yield from _read(path / each)


def of_kind(found: list[Document], *kinds: str) -> dict[str, Document]:
    """Return the documents of some kinds by their names."""
    return {each["metadata"]["name"]: each for each in found if each["kind"] in kinds}


def pods(found: list[Document]) -> dict[str, Document]:
    """Return the pod of every workload, with the labels that it gets, by the workload's name."""
    workloads = of_kind(found, "Deployment", "StatefulSet", "Job")
    return {name: each["spec"]["template"] for name, each in workloads.items()}


def service_pods(found: list[Document]) -> dict[str, tuple[str, Document]]:
    """Return the service and the pod of every Deployment, by the Deployment's name."""
    return {
        name: (pod["metadata"]["labels"]["app.kubernetes.io/component"], pod)
        for name, pod in pods(found).items()
        if name in of_kind(found, "Deployment")
    }


def container(pod: Document) -> Document:
    """Return a pod's only container."""
    (only,) = pod["spec"]["containers"]
    found: Document = only
    return found


def environment(pod: Document, secrets: dict[str, dict[str, str]]) -> dict[str, str]:
    """Return the variables that a pod's container is told by name."""
    told = {}
    for each in container(pod)["env"]:
        source = each.get("valueFrom", {})
        if "secretKeyRef" in source:
            told[each["name"]] = secrets[source["secretKeyRef"]["name"]][source["secretKeyRef"]["key"]]
        elif "fieldRef" in source:
            told[each["name"]] = _field(pod, source["fieldRef"]["fieldPath"])
        else:
            told[each["name"]] = each["value"]
    return told


def _field(pod: Document, path: str) -> str:
    key = path.removeprefix("metadata.labels['").removesuffix("']")
    label: str = pod["metadata"]["labels"][key]
    return label
