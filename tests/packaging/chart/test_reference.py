"""The chart's documentation matches what the chart does."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_python.chart import Chart, lint, package

import bits_auth_proxy
from tests.packaging.chart.cases import CASES, REQUIRED, given
from tests.packaging.chart.engine import EXAMPLE, NAMESPACE, PROXY, directory, manifests
from tools.generate.chart import CHART, SCHEMA, documented_values

# For every value in the table, another valid value.
_OTHERS: dict[str, Any] = {
    "mode": "sidecar",
    "image.repository": "registry.example/other",
    "image.tag": "edge",
    "image.digest": "sha256:" + "0" * 64,
    "image.pullPolicy": "Never",
    "credentials.secretName": "other",
    "credentials.clientIdKey": "id",
    "credentials.clientSecretKey": "secret",
    "credentials.externalSecret.storeName": "vault",
    "credentials.externalSecret.storeKind": "ClusterSecretStore",
    "credentials.externalSecret.remoteKey": "other",
    "credentials.externalSecret.refreshInterval": "1h",
    "settings": {"BITS_ACCESS_LOG": "all"},
    "port": 8181,
    "adminPort": 9191,
    "operatorPort": 0,
    "ipv6": True,
    "trustedCa.configMapName": "ca",
    "trustedCa.key": "ca.pem",
    "resources.requests.cpu": "1",
    "resources.requests.memory": "1Gi",
    "resources.limits.memory": "2Gi",
    "monitoring.labels": {"release": "prometheus"},
    "monitoring.podMonitor": True,
    "monitoring.prometheusRule": True,
    "monitoring.dashboard": True,
    "gateway.replicas.min": 3,
    "gateway.replicas.max": 9,
    "gateway.replicas.targetCpu": 50,
    "gateway.tls.secretName": "tls",
    "gateway.tls.clientCertificates": True,
    "gateway.tls.allowedNames": ["spiffe://cluster.local/ns/shop/sa/checkout"],
    "gateway.tls.revocationLists": True,
    "gateway.networkPolicy.enabled": False,
    "gateway.networkPolicy.from": [{"podSelector": {}}],
    "gateway.networkPolicy.metricsFrom": [],
    "gateway.networkPolicy.to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}],
    "gateway.imagePullSecrets": [{"name": "registry"}],
    "gateway.podLabels": {"team": "payments"},
    "gateway.podAnnotations": {"team": "payments"},
    "gateway.nodeSelector": {"kubernetes.io/arch": "amd64"},
    "gateway.tolerations": [{"operator": "Exists"}],
}
_ENTRY = {"credentials.externalSecret.remoteKey": "apps/bits"}
_STORE = {**_ENTRY, "credentials.externalSecret.storeName": "vault"}
_MUTUAL = {"gateway.tls.secretName": "tls", "gateway.tls.clientCertificates": True}
# A value on the left has an effect only together with those on the right.
_CONDITIONS: dict[str, dict[str, Any]] = {
    "credentials.externalSecret.storeName": _ENTRY,
    "credentials.externalSecret.storeKind": _STORE,
    "credentials.externalSecret.remoteKey": _STORE,
    "credentials.externalSecret.refreshInterval": _STORE,
    "trustedCa.key": {"trustedCa.configMapName": "ca"},
    "monitoring.labels": {"monitoring.podMonitor": True},
    "gateway.tls.clientCertificates": {"gateway.tls.secretName": "tls"},
    "gateway.tls.allowedNames": _MUTUAL,
    "gateway.tls.revocationLists": _MUTUAL,
}


@pytest.mark.parametrize("path", documented_values())
def test_every_value_changes_what_is_made(path: str) -> None:
    before = _CONDITIONS.get(path, {})
    changed = manifests(PROXY, given({**before, path: _OTHERS[path]}))
    assert changed != manifests(PROXY, given(before))


def test_every_value_is_in_the_table_and_in_the_schema() -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    schema = json.loads(SCHEMA.read_text("utf-8"))
    documented = documented_values()

    def leaves(values: Any, node: dict[str, Any], path: str) -> list[str]:
        if path in documented or not isinstance(values, dict):
            return [path]
        return [
            leaf
            for key, value in values.items()
            for leaf in leaves(value, node["properties"][key], f"{path}.{key}".lstrip("."))
        ]

    assert leaves(defaults, schema, "") == documented == list(_OTHERS)


def test_its_version_is_the_proxys() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["version"] == chart["appVersion"] == bits_auth_proxy.__version__
    example = yaml.safe_load((directory(EXAMPLE) / "Chart.yaml").read_text("utf-8"))
    assert [each["version"] for each in example["dependencies"]] == [bits_auth_proxy.__version__]


@pytest.mark.parametrize("name", CASES)
def test_helm_finds_nothing_to_complain_about(name: str) -> None:
    chart, values = CASES[name]
    report = lint(directory(chart), values, strict=True, kube_version="v1.29.0")
    assert report["errors"] == []
    assert [each["error"] for each in report["messages"]] == ["icon is recommended"]


def test_packaged_it_renders_the_same() -> None:
    with tempfile.TemporaryDirectory() as target:
        archive = package(CHART, destination=target)
        assert Path(archive).name == f"{PROXY}-{bits_auth_proxy.__version__}.tgz"
        with Chart.load(archive) as chart:
            rendered = chart.render(dict(REQUIRED), name="bits", namespace=NAMESPACE, is_install=True)
    assert {path: text.strip() + "\n" for path, text in rendered.items() if text.strip()} == manifests(
        PROXY, REQUIRED
    )
