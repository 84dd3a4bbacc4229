"""The charts, rendered by the real Helm engine."""

import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml
from helm_python.chart import Chart
from helm_python.registry import dependency_update

HELM: Final = Path(__file__).parents[3] / "helm"
PROXY: Final = "bits-auth-proxy"
EXAMPLE: Final = "example-app"
NAMESPACE: Final = "apps"

Document = dict[str, Any]


@cache
def directory(chart: str) -> Path:
    """Return the chart's directory. The example is a copy that holds its dependency, as `helm` needs it."""
    if chart == PROXY:
        return HELM / PROXY
    copy = Path(tempfile.mkdtemp(prefix="charts-"))
    shutil.copytree(HELM, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns("charts", "Chart.lock"))
    dependency_update(copy / chart)
    return copy / chart


@cache
def _loaded(chart: str) -> Chart:
    return Chart.load(directory(chart))


def manifests(chart: str, values: dict[str, Any], *, release: str = "bits") -> dict[str, str]:
    """Return the output of each template, except for empty ones. Raises HelmError."""
    rendered = _loaded(chart).render(values, name=release, namespace=NAMESPACE, is_install=True)
    return {path: text.strip() + "\n" for path, text in sorted(rendered.items()) if text.strip()}


def documents(chart: str, values: dict[str, Any], *, release: str = "bits") -> list[Document]:
    """Return the objects that Helm would send to a cluster. Raises HelmError."""
    texts = [
        text
        for path, text in manifests(chart, values, release=release).items()
        if not path.endswith("NOTES.txt")
    ]
    return [document for text in texts for document in yaml.safe_load_all(text) if document is not None]


def one(found: list[Document], kind: str) -> Document:
    """Return the only object of this kind."""
    [document] = (document for document in found if document["kind"] == kind)
    return document


def pods(found: list[Document]) -> list[Document]:
    """Return all pods: those of tests, and those that a Deployment would create (labels and spec)."""
    return [
        document["spec"]["template"] if document["kind"] == "Deployment" else document
        for document in found
        if document["kind"] in ("Deployment", "Pod")
    ]


def containers(pod: Document) -> list[Document]:
    """Return the containers of a pod, init containers first."""
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def environment(container: Document) -> dict[str, str]:
    """Return the environment variables of a container."""
    return {each["name"]: each["value"] for each in container["env"]}
