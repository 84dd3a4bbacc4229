"""Values to render the charts with, from as few as possible to all of them in all forms."""

import copy
from typing import Any, Final, NamedTuple

from tests.packaging.chart.engine import EXAMPLE, PROXY

Values = dict[str, Any]

REQUIRED: Final[Values] = {
    "image": {"repository": "registry.example/bits-auth-proxy"},
    "credentials": {"secretName": "bits-credentials"},
}


def given(values: Values) -> Values:
    """Return the required values together with `values`, which are named by dotted paths."""
    whole: Values = copy.deepcopy(REQUIRED)
    for path, value in values.items():
        *groups, last = path.split(".")
        inner = whole
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = value
    return whole


class Case(NamedTuple):
    """A chart and its values."""

    chart: str
    values: Values


_TUNED: Final[Values] = {
    "BITS_API_URL": "https://bits.example:8443",
    "BITS_TOKEN_URL": "https://login.example/token",
    "BITS_HTTPS_PROXY": "http://egress.example:3128",
    "BITS_SCOPE": "application",
    "BITS_ALLOW": ["GET /oauth2/userinfo", "POST /v1/applications.*"],
    "BITS_ALLOWED_HOSTS": "bits.apps.example",
    "BITS_DRAIN_DELAY": 7.5,
    "BITS_DRAIN_TIMEOUT": 40,
    "BITS_STARTUP_GRACE": 10,
    "BITS_FORWARDED_HEADERS": True,
    "BITS_UPSTREAM__WARM_CONNECTIONS": 0,
    "BITS_LIMITS__REPLAY_TOTAL": 16_777_216,
}

CASES: Final[dict[str, Case]] = {
    "gateway": Case(PROXY, REQUIRED),
    "gateway-in-full": Case(
        PROXY,
        {
            "image": {
                "repository": "registry.example:5000/bits/bits-auth-proxy",
                "digest": "sha256:" + "0123456789abcdef" * 4,
                "pullPolicy": "Always",
            },
            "credentials": {
                "secretName": "bits",
                "clientIdKey": "id",
                "clientSecretKey": "secret",
                "externalSecret": {
                    "storeName": "vault",
                    "storeKind": "ClusterSecretStore",
                    "remoteKey": "apps/bits",
                    "refreshInterval": "1m",
                },
            },
            "settings": _TUNED,
            "port": 8443,
            "adminPort": 9191,
            "ipv6": True,
            "trustedCa": {"configMapName": "corporate-ca", "key": "bundle.pem"},
            "resources": {"requests": {"cpu": 1, "memory": "128Mi"}, "limits": {"cpu": 2, "memory": "1Gi"}},
            "monitoring": {"labels": {"release": "prometheus"}, "podMonitor": True},
            "gateway": {
                "replicas": {"min": 3, "max": 30, "targetCpu": 50},
                "tls": {
                    "secretName": "bits-tls",
                    "clientCertificates": True,
                    "allowedNames": ["checkout.shop.example", "spiffe://cluster.local/ns/shop/sa/web"],
                    "revocationLists": True,
                },
                "networkPolicy": {
                    "from": [
                        {
                            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}},
                            "podSelector": {
                                "matchExpressions": [
                                    {"key": "app", "operator": "In", "values": ["web", "worker"]}
                                ]
                            },
                        }
                    ],
                    "metricsFrom": [],
                    "to": [{"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.128/25"]}}],
                },
                "imagePullSecrets": [{"name": "registry"}],
                "podLabels": {"team": "payments"},
                "podAnnotations": {"example.com/owner": "payments"},
                "nodeSelector": {"kubernetes.io/arch": "amd64"},
                "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
            },
        },
    ),
    "gateway-of-one": Case(
        PROXY,
        {
            **REQUIRED,
            "settings": {"BITS_DRAIN_DELAY": 0, "BITS_ALLOWED_HOSTS": ["a.example", "b.example"]},
            "gateway": {
                "replicas": {"min": 1, "max": 1},
                "tls": {"secretName": "bits-tls"},
                "networkPolicy": {"enabled": False},
            },
        },
    ),
    "sidecar-by-itself": Case(PROXY, {**REQUIRED, "mode": "sidecar"}),
    "example": Case(EXAMPLE, {}),
    "example-in-full": Case(
        EXAMPLE,
        {
            PROXY: {
                "image": {"repository": "registry.example/bits-auth-proxy", "tag": "edge"},
                "credentials": {
                    "secretName": "bits",
                    "externalSecret": {"storeName": "vault", "remoteKey": "apps/bits"},
                },
                "settings": _TUNED,
                "adminPort": 9191,
                "ipv6": True,
                "trustedCa": {"configMapName": "corporate-ca"},
                "monitoring": {"labels": {"release": "prometheus"}, "podMonitor": True},
            }
        },
    ),
    "example-on-the-usual-port": Case(EXAMPLE, {PROXY: {"port": 8080, "ipv6": True}}),
}
