"""Clusters accept the objects of the charts, and the objects fit together."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from bits_auth_proxy.settings.loading import load
from tests.packaging.chart.cases import CASES, REQUIRED
from tests.packaging.chart.custom_resources import SCHEMAS
from tests.packaging.chart.engine import (
    EXAMPLE,
    NAMESPACE,
    PROXY,
    Document,
    containers,
    documents,
    environment,
    one,
    pods,
)
from tools.generate.chart import FILES

OLDEST = "1.29"
"""The oldest Kubernetes that the chart supports."""
GATEWAYS = [
    name for name, case in CASES.items() if case.chart == PROXY and case.values.get("mode") != "sidecar"
]
EXAMPLES = [name for name, case in CASES.items() if case.chart == EXAMPLE]
MOUNT = "/etc/bits-auth-proxy"

# Values by the name of the field. The schemas of Kubernetes accept any text.
ENUMERATIONS = {
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "restartPolicy": {"Always", "Never"},
    "protocol": {"TCP", "UDP"},
    "whenUnsatisfiable": {"ScheduleAnyway"},
    "unhealthyPodEvictionPolicy": {"AlwaysAllow"},
    "effect": {"NoSchedule"},
    "operator": {"In", "Exists"},
    "type": {"RollingUpdate", "Resource", "Utilization", "RuntimeDefault"},
}


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("name", CASES)
def test_kubernetes_knows_every_field(name: str, version: str) -> None:
    for document in documents(*CASES[name]):
        if document["kind"] not in SCHEMAS:
            kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("name", CASES)
def test_enumerations_have_values_that_exist(name: str) -> None:
    for key, value in _fields(documents(*CASES[name])):
        assert value in ENUMERATIONS.get(key, {value}), key


def test_custom_resources_are_as_their_operators_want_them() -> None:
    monitoring = {"podMonitor": True, "prometheusRule": True, "dashboard": True, "labels": {"release": "x"}}
    external = {"storeName": "vault", "remoteKey": "apps/bits"}
    credentials = {**REQUIRED["credentials"], "externalSecret": external}
    found = documents(PROXY, {**REQUIRED, "credentials": credentials, "monitoring": monitoring})
    for kind, schema in SCHEMAS.items():
        jsonschema.validate(one(found, kind), schema)
    for kind in ("PodMonitor", "PrometheusRule"):
        assert one(found, kind)["metadata"]["labels"]["release"] == "x"
    assert one(found, "ExternalSecret")["spec"]["target"]["name"] == REQUIRED["credentials"]["secretName"]


def test_the_alerts_and_the_dashboard_are_those_of_the_files() -> None:
    found = documents(PROXY, {**REQUIRED, "monitoring": {"prometheusRule": True, "dashboard": True}})
    assert one(found, "PrometheusRule")["spec"] == yaml.safe_load((FILES / "alerts.yaml").read_text("utf-8"))
    dashboard = one(found, "ConfigMap")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    [text] = dashboard["data"].values()
    assert json.loads(text) == json.loads((FILES / "dashboard.json").read_text("utf-8"))


@pytest.mark.parametrize("name", CASES)
def test_pods_are_restricted(name: str) -> None:
    """They meet the profile `restricted` of the Pod Security Standards, and a little more."""
    for pod in pods(documents(*CASES[name])):
        spec = pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert spec["automountServiceAccountToken"] is False
        assert {kind for volume in spec.get("volumes", ()) for kind in volume} <= {
            "name",
            "secret",
            "configMap",
        }
        for container in containers(pod):
            context = {**spec["securityContext"], **container["securityContext"]}
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True
            assert context["runAsNonRoot"] is True
            assert context["runAsUser"] > 0
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}
            assert not {"hostPort"} & {key for port in container.get("ports", ()) for key in port}
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), (
                "autoscalers count from them"
            )


@pytest.mark.parametrize("name", CASES)
def test_the_proxy_understands_every_variable(name: str, tmp_path: Path) -> None:
    """They work with the mounted files, and every file that a setting names is mounted."""
    for pod in pods(documents(*CASES[name])):
        mounted = _volumes(pod)
        for container in containers(pod):
            if not any(mount["mountPath"].startswith(MOUNT) for mount in container.get("volumeMounts", ())):
                continue
            for mount in container["volumeMounts"]:
                directory = tmp_path / mount["mountPath"].removeprefix("/")
                directory.mkdir(parents=True, exist_ok=True)
                for file in mounted[mount["name"]]:
                    (directory / file).write_text("content", "utf-8")
            environ = {
                variable: value.replace(MOUNT, f"{tmp_path}{MOUNT}")
                for variable, value in environment(container).items()
            }
            loaded = load(environ=environ, env_file=None, credentials_required=True)
            assert loaded.warnings == ()


@pytest.mark.parametrize("name", CASES)
def test_the_credentials_are_mounted_whole_so_that_a_rotation_arrives(name: str) -> None:
    for pod in pods(documents(*CASES[name])):
        for container in containers(pod):
            assert not [mount for mount in container.get("volumeMounts", ()) if "subPath" in mount]
            assert all(set(each) == {"name", "value"} for each in container.get("env", ())), (
                "none from a Secret"
            )


@pytest.mark.parametrize("name", GATEWAYS)
def test_the_gateway_fits_together(name: str) -> None:
    found = documents(*CASES[name])
    deployment, service = one(found, "Deployment"), one(found, "Service")
    spec = deployment["spec"]
    labels = spec["template"]["metadata"]["labels"]
    selectors = {
        "Deployment": spec["selector"]["matchLabels"],
        "Service": service["spec"]["selector"],
        "PodDisruptionBudget": one(found, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        **{
            constraint["topologyKey"]: constraint["labelSelector"]["matchLabels"]
            for constraint in spec["template"]["spec"]["topologySpreadConstraints"]
        },
        **{
            document["kind"]: document["spec"]["podSelector"]["matchLabels"]
            for document in found
            if document["kind"] == "NetworkPolicy"
        },
    }
    test = one(found, "Pod")["metadata"]["labels"]
    for selector in selectors.values():
        assert selector.items() <= labels.items()
        assert not selector.items() <= test.items(), "the test's pod is no gateway"
    [container] = spec["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert service["spec"]["ports"][0]["targetPort"] in ports
    assert {
        container[probe]["httpGet"]["port"] for probe in container if probe.endswith("Probe")
    } <= ports.keys()
    assert spec["template"]["spec"]["serviceAccountName"] == one(found, "ServiceAccount")["metadata"]["name"]


@pytest.mark.parametrize("name", GATEWAYS)
def test_the_gateway_listens_where_it_is_called(name: str) -> None:
    found = documents(*CASES[name])
    [container] = one(found, "Deployment")["spec"]["template"]["spec"]["containers"]
    settings = environment(container)
    ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
    assert {each.rpartition(":")[2] for each in settings["BITS_LISTEN"].split(",")} == {ports["bits-proxy"]}
    *pods, own = settings["BITS_ADMIN_LISTEN"].split(",")
    assert {each.rpartition(":")[2] for each in pods} == {ports["bits-admin"]}
    # A port that others must not reach is not a port of the container.
    assert own == "127.0.0.1:9091"
    service = one(found, "Service")
    name = service["metadata"]["name"]
    hosts = settings["BITS_ALLOWED_HOSTS"].split(",")
    assert [name, f"{name}.{NAMESPACE}", f"{name}.{NAMESPACE}.svc"] == hosts[:3]
    assert service["spec"]["ports"][0]["name"] == ("https" if "BITS_LISTEN_TLS__CERT" in settings else "http")


@pytest.mark.parametrize("name", GATEWAYS)
def test_the_gateway_has_time_to_drain(name: str) -> None:
    pod = one(documents(*CASES[name]), "Deployment")["spec"]["template"]["spec"]
    settings = environment(pod["containers"][0])
    defaults = load(environ={}, env_file=None, credentials_required=False).settings
    timeout = float(settings.get("BITS_DRAIN_TIMEOUT", defaults.drain_timeout))
    assert (
        pod["terminationGracePeriodSeconds"] >= math.ceil(float(settings["BITS_DRAIN_DELAY"]) + timeout) + 5
    )


def test_the_gateway_drains_for_five_seconds_unless_told_otherwise() -> None:
    def delay(settings: dict[str, Any]) -> str:
        pod = one(documents(PROXY, {**REQUIRED, "settings": settings}), "Deployment")["spec"]["template"][
            "spec"
        ]
        return environment(pod["containers"][0])["BITS_DRAIN_DELAY"]

    assert [delay({}), delay({"BITS_DRAIN_DELAY": 0}), delay({"BITS_DRAIN_DELAY": 9})] == ["5", "0", "9"]


@pytest.mark.parametrize(
    ("settings", "ports"),
    [
        ({}, [443]),
        ({"BITS_API_URL": "https://bits.example/"}, [443]),
        ({"BITS_API_URL": "https://[2001:db8::1]:8443"}, [8443]),
        ({"BITS_API_URL": "http://[2001:db8::1]"}, [80]),
        ({"BITS_TOKEN_URL": "https://login.example:9443/token"}, [443, 9443]),
        ({"BITS_HTTPS_PROXY": "http://egress.example:3128"}, [443, 3128]),
    ],
)
def test_the_network_policy_lets_out_to_dns_and_the_api_alone(
    settings: dict[str, str], ports: list[int]
) -> None:
    spec = one(documents(PROXY, {**REQUIRED, "settings": settings}), "NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    dns, api = spec["egress"]
    assert dns == {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}
    assert api == {"ports": [{"protocol": "TCP", "port": port} for port in ports]}


def test_the_network_policy_lets_in_who_is_named() -> None:
    spec = one(documents(PROXY, REQUIRED), "NetworkPolicy")["spec"]
    proxy, admin = spec["ingress"]
    assert proxy["ports"] == [{"protocol": "TCP", "port": "bits-proxy"}]
    assert proxy["from"] == [{"podSelector": {"matchLabels": {"bits-auth-proxy/client": "true"}}}]
    assert admin["ports"] == [{"protocol": "TCP", "port": "bits-admin"}]
    assert admin["from"][0]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "monitoring"
    }


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_starts_with_a_token_in_hand(name: str) -> None:
    found = documents(*CASES[name])
    pod = one(found, "Deployment")["spec"]["template"]["spec"]
    [sidecar], [app] = pod["initContainers"], pod["containers"]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["startupProbe"]["httpGet"]["path"] == "/startupz"
    assert sidecar["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert "readinessProbe" not in sidecar, "an outage of Bits must not take the app away"
    settings = environment(sidecar)
    defaults = load(environ={}, env_file=None, credentials_required=False).settings
    probe = sidecar["startupProbe"]
    grace = float(settings.get("BITS_STARTUP_GRACE", defaults.startup_grace))
    assert probe["failureThreshold"] * probe["periodSeconds"] > grace + 20, "it is not killed before"
    assert all(
        listen.startswith(("127.0.0.1:", "[::1]:"))
        for listen in settings.get("BITS_LISTEN", "[::1]:").split(",")
    ), "other pods can't call"
    port = settings.get("BITS_LISTEN", "127.0.0.1:8080").rpartition(":")[2]
    assert environment(app)["BITS_URL"] == f"http://localhost:{port}"
    assert not {mount["name"] for mount in app.get("volumeMounts", ())}, "the app sees no secret"


def test_the_pod_monitor_finds_the_pods_of_either_mode() -> None:
    for name in ("gateway-in-full", "example-in-full"):
        found = documents(*CASES[name])
        monitor, deployment = one(found, "PodMonitor")["spec"], one(found, "Deployment")
        pod = deployment["spec"]["template"]
        assert monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        ports = {port["name"] for container in containers(pod) for port in container.get("ports", ())}
        assert {endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]} <= ports


def test_names_are_short_enough_and_not_doubled() -> None:
    longest = "r" * 53
    """A name that Helm accepts for a release."""
    for release, name in (("bits-auth-proxy", "bits-auth-proxy"), ("bits", "bits-bits-auth-proxy")):
        assert one(documents(PROXY, REQUIRED, release=release), "Service")["metadata"]["name"] == name
    found = documents(PROXY, {**REQUIRED, "monitoring": {"dashboard": True}}, release=longest)
    assert all(len(document["metadata"]["name"]) <= 63 for document in found)


def _fields(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            if isinstance(value, str):
                yield key, value
            yield from _fields(value)
    elif isinstance(node, list):
        for value in node:
            yield from _fields(value)


def _volumes(pod: Document) -> dict[str, list[str]]:
    """Return the files in each volume. Without `items`, it is a Secret of type kubernetes.io/tls."""
    whole = [{"path": name} for name in ("tls.crt", "tls.key", "ca.crt", "ca.crl")]
    return {
        volume["name"]: [
            item["path"] for item in volume.get("secret", volume.get("configMap")).get("items", whole)
        ]
        for volume in pod["spec"].get("volumes", ())
    }
