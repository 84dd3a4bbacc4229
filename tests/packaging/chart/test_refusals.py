"""Values that can't work are rejected before anything reaches a cluster, and the message names the value."""

import json
from typing import Any

import pytest
from helm_python.errors import HelmError

from tests.packaging.chart.cases import REQUIRED, Values, given
from tests.packaging.chart.engine import EXAMPLE, PROXY, manifests
from tools.generate.chart import SCHEMA

REFUSED: list[tuple[str, Any]] = [
    # Missing values.
    ("image.repository", ""),
    ("image.repository", None),
    ("credentials.secretName", ""),
    ("credentials.secretName", None),
    ("credentials.externalSecret", {"storeName": "vault"}),
    # Unknown values, at every level.
    ("replicas", 3),
    ("image.name", "bits-auth-proxy"),
    ("credentials.clientSecret", "never in values"),
    ("credentials.externalSecret.kind", "SecretStore"),
    ("settings.BITS_ACESS_LOG", "all"),
    ("settings.HTTPS_PROXY", "http://egress.example:3128"),
    ("trustedCa.secretName", "ca"),
    ("resources.claims", []),
    ("resources.limits.storage", "1Gi"),
    ("monitoring.serviceMonitor", True),
    ("gateway.ingress", {}),
    ("gateway.replicas.minimum", 2),
    ("gateway.tls.enabled", True),
    ("gateway.networkPolicy.egress", []),
    ("gateway.networkPolicy.from", [{"pods": {}}]),
    ("gateway.networkPolicy.to", [{"ipBlock": {"range": "203.0.113.0/24"}}]),
    ("gateway.tolerations", [{"taint": "x"}]),
    ("gateway.imagePullSecrets", [{"secret": "x"}]),
    # Values of a wrong type, or out of bounds.
    ("mode", "daemonset"),
    ("image.pullPolicy", "Sometimes"),
    ("image.digest", "sha256:abc"),
    ("image.repository", "registry.example/bits@sha256:abc"),
    ("port", "8080"),
    ("port", 80),
    ("adminPort", 70000),
    ("operatorPort", 80),
    ("ipv6", "yes"),
    ("resources.requests.memory", "much"),
    ("settings.BITS_TOKEN_WAIT", "5"),
    ("settings.BITS_TOKEN_WAIT", 0),
    ("settings.BITS_LOG_LEVEL", "loud"),
    ("settings.BITS_ALLOW", {"GET": "/"}),
    ("monitoring.podMonitor", "true"),
    ("gateway.replicas.min", 0),
    ("gateway.replicas.max", 2.5),
    ("gateway.podLabels", {"a": 1}),
    ("gateway.podLabels", {"app.kubernetes.io/name": "mine"}),
    # Without a peer nobody may call, but an empty list in a NetworkPolicy lets everybody in.
    ("gateway.networkPolicy.from", []),
    ("gateway.networkPolicy.from", [{}]),
    # Settings that the chart decides itself, and secrets, which must not be in values.
    ("settings.BITS_LISTEN", "0.0.0.0:80"),
    ("settings.BITS_ADMIN_LISTEN", "127.0.0.1:9090"),
    ("settings.BITS_CLIENT_SECRET", "never in values"),
    ("settings.BITS_CREDENTIALS_DIR", "/run/secrets"),
    ("settings.BITS_UPSTREAM__CA_FILE", "/ca.pem"),
    ("settings.BITS_HTTPS_PROXY", "http://user:password@egress.example:3128"),
]


@pytest.mark.parametrize(("path", "value"), REFUSED)
def test_the_schema_refuses(path: str, value: Any) -> None:
    with pytest.raises(HelmError) as refused:
        manifests(PROXY, given({path: value}))
    named = path.rpartition(".")[2]
    assert "schema" in str(refused.value)
    assert named in str(refused.value)


@pytest.mark.parametrize("path", ["image", "credentials"])
def test_the_schema_asks_for_what_is_required(path: str) -> None:
    with pytest.raises(HelmError, match=path):
        manifests(PROXY, {key: value for key, value in REQUIRED.items() if key != path})


@pytest.mark.parametrize(
    ("chart", "values", "message"),
    [
        (
            PROXY,
            given({"gateway.replicas": {"min": 3, "max": 2}}),
            "gateway.replicas.max: must not be less than gateway.replicas.min",
        ),
        (EXAMPLE, {PROXY: {"mode": "gateway"}}, "bits-auth-proxy.mode: must be sidecar"),
    ],
)
def test_the_templates_refuse(chart: str, values: Values, message: str) -> None:
    with pytest.raises(HelmError, match=message):
        manifests(chart, values)


def test_every_object_of_the_schema_is_closed() -> None:
    """Except for Helm's own `global`, and maps of labels, whose values are limited."""
    schema = json.loads(SCHEMA.read_text("utf-8"))
    opened = []

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object" and node.get("additionalProperties") is not False:
                opened.append((path, node.get("additionalProperties")))
            for key, value in node.items():
                walk(value, f"{path}/{key}")
        elif isinstance(node, list):
            for index, value in enumerate(node):
                walk(value, f"{path}/{index}")

    walk(schema, "")
    text = {"type": "string"}
    assert opened == [
        ("/properties/global", None),
        ("/properties/gateway/properties/podLabels", text),
        ("/$defs/labels", text),
    ]
