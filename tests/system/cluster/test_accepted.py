"""A real API server accepts the objects of the charts unchanged, and its controllers create the pods."""

import copy
from typing import Any

import pytest
import yaml

from tests.packaging.chart.cases import CASES
from tests.packaging.chart.engine import NAMESPACE, Document, directory, documents
from tests.system.cluster.cluster import Cluster
from tests.system.containers.containers import eventually


def test_the_definitions_of_operators_are_there(running: Cluster) -> None:
    define(running)
    assert running.items("podmonitors,prometheusrules,externalsecrets", "--all-namespaces") == []


@pytest.mark.parametrize("name", CASES)
def test_the_helm_command_renders_what_was_reviewed(running: Cluster, name: str) -> None:
    case = CASES[name]
    printed = running.helm(
        "template",
        "bits",
        str(directory(case.chart)),
        f"--namespace={NAMESPACE}",
        "--values=-",
        given=yaml.safe_dump(case.values),
    )
    found = [document for document in yaml.safe_load_all(printed) if document is not None]
    assert sorted(found, key=_named) == sorted(documents(*case), key=_named)
    running.helm(
        "lint", "--strict", str(directory(case.chart)), "--values=-", given=yaml.safe_dump(case.values)
    )


@pytest.mark.parametrize("name", CASES)
def test_every_field_is_kept_as_it_was_sent(running: Cluster, name: str) -> None:
    define(running)
    running.namespace(name)
    sent = [_moved(document, name) for document in documents(*CASES[name])]
    made, warned = running.tell(
        "kubectl",
        "create",
        "--validate=strict",
        "--output=yaml",
        "--filename=-",
        given=yaml.safe_dump_all(sent),
    )
    assert warned == ""
    for ours, theirs in zip(sent, yaml.safe_load_all(made), strict=True):
        assert _differences(ours, theirs, ours["kind"]) == []
    for deployment in (document for document in sent if document["kind"] == "Deployment"):
        _has_its_pods(running, name, deployment, sent)
    running.kubectl("delete", "namespace", name, "--wait=false")


def define(running: Cluster) -> None:
    """Install the custom resource definitions of the operators."""
    files = [f"--filename={path}" for path in running.definitions]
    running.kubectl("apply", "--server-side", *files)
    running.kubectl(
        "wait", "--for=condition=Established", "customresourcedefinitions", "--all", "--timeout=30s"
    )


def _has_its_pods(running: Cluster, namespace: str, deployment: Document, sent: list[Document]) -> None:
    """The profile `restricted` rejects none of them."""
    scaled = [
        document["spec"]["minReplicas"] for document in sent if document["kind"] == "HorizontalPodAutoscaler"
    ]
    wanted = scaled[0] if scaled else deployment["spec"]["replicas"]
    name = deployment["metadata"]["name"]

    def made() -> bool:
        status = running.get("deployment", name, f"--namespace={namespace}")["status"]
        return bool(status.get("replicas", 0) == wanted)

    eventually(made, f"{wanted} pods of {namespace}/{name}")
    refused = running.items("events", f"--namespace={namespace}", "--field-selector=reason=FailedCreate")
    assert refused == []


def _moved(document: Document, namespace: str) -> Document:
    document = copy.deepcopy(document)
    document["metadata"]["namespace"] = namespace
    return document


def _named(document: Document) -> tuple[str, str]:
    return document["kind"], document["metadata"]["name"]


def _differences(ours: Any, theirs: Any, path: str) -> list[str]:
    """Return the paths at which the server changed what it was given. It may add to it."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [each for key in ours for each in _differences(ours[key], theirs.get(key), f"{path}.{key}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [each for index, (a, b) in pairs for each in _differences(a, b, f"{path}[{index}]")]
    # The server writes quantities as strings.
    same = ours == theirs or (isinstance(ours, int | float) and str(ours) == theirs)
    return [] if same else [f"{path}: {ours!r} became {theirs!r}"]
