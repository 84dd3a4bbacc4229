"""docs/kubernetes.md followed on a real node: its commands, and what it promises.

Each test continues where the previous one ended, like the page.
"""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
import yaml

from tests.packaging.chart.engine import EXAMPLE, PROXY, directory
from tests.support.commands import ROOT
from tests.support.documentation import PAGES
from tests.system.cluster.cluster import NODE, REGISTRY, Cluster, CommandError
from tests.system.containers.containers import eventually

PAGE: Final = (ROOT / "docs/kubernetes.md").read_text("utf-8")
SECRET: Final = "canary-secret-9d2f7c"
NEXT_SECRET: Final = "canary-secret-1b83aa"
_API: Final = "http://api.bits-api:8090"
# The page names neither of them, because the real API needs neither.
_EMULATED: Final = {"BITS_API_URL": _API, "BITS_ALLOW_INSECURE_HTTP": True}


# The beginnings of all commands in the documentation that need a cluster. The tests here run each of them.
KNOWN: Final = (
    "curl -s localhost:9090/status",
    "docker push",  # the fixture `running` does this with podman
    "docker tag",
    "helm package",
    "helm push",
    "helm test",
    "helm upgrade --install",
    "kubectl create secret generic bits-credentials",
    "kubectl describe pod POD",
    "kubectl describe secret NAME",
    "kubectl exec --namespace shop",
    "kubectl logs --namespace shop",
    "kubectl logs POD -c bits-auth-proxy",
    "kubectl port-forward POD 9090:9091",
    "openssl s_client",
)


def console(text: str) -> list[str]:
    """Return the commands in a page's `console` blocks."""
    blocks = re.findall(r"^ *```console\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [
        line.strip()
        for block in blocks
        for line in re.split(r"^\$ ", textwrap.dedent(block), flags=re.MULTILINE)
        if line.strip()
    ]


def commands(start: str, text: str = PAGE) -> list[str]:
    """Return the page's commands with this beginning, for a shell. The registry here has no TLS."""
    found = [line for line in console(text) if line.startswith(start)]
    assert found, start
    return [
        line.replace("registry.example", REGISTRY).replace(" oci:", " --plain-http oci:") for line in found
    ]


def runbook(alert: str) -> str:
    return (ROOT / f"docs/runbooks/{alert}.md").read_text("utf-8")


@pytest.fixture(scope="module")
def shop(running: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a user, with the charts and the files of the Secret. The emulator replaces the API."""
    place = tmp_path_factory.mktemp("shop")
    for name in ("shop", "bits", "bits-api"):
        running.namespace(name)
    shutil.copytree(directory(EXAMPLE), place / "shop")
    shutil.copytree(ROOT / "helm", place / "helm")
    values = _values("bits-auth-proxy:")
    values[PROXY]["settings"] = _EMULATED
    (place / "shop/values.yaml").write_text(yaml.safe_dump({**values, "image": f"{REGISTRY}/app:1.0.0"}))
    (place / "values.yaml").write_text(yaml.safe_dump({**_values("image:"), "settings": _EMULATED}))
    (place / "client_id").write_text("bits:client::3f1c\n")
    (place / "client_secret").write_text(f"{SECRET}\n")
    running.kubectl("apply", "--filename=-", given=yaml.safe_dump_all(_emulator()))
    running.kubectl("wait", "--namespace=bits-api", "--for=condition=Ready", "pod/emulator", "--timeout=60s")
    running.publish()
    return place


def test_every_command_for_a_cluster_is_carried_out_here() -> None:
    found = [line for page in PAGES for line in console(page.read_text("utf-8"))]
    assert [line for line in found if not line.startswith(KNOWN)] == []
    assert [start for start in KNOWN if not any(line.startswith(start) for line in found)] == []


def test_the_chart_is_packaged_and_pushed(running: Cluster, shop: Path) -> None:
    for line in commands("helm package") + commands("helm push"):
        running.shell(line, cwd=shop)


def test_as_a_sidecar(running: Cluster, shop: Path) -> None:
    [create, _] = [line for line in commands("kubectl create secret") if "--namespace shop" in line]
    running.shell(create, cwd=shop)
    [install, test] = [line for line in commands("helm") if "--namespace shop" in line]
    running.shell(install, cwd=shop)
    running.kubectl("rollout", "status", "--namespace=shop", "deploy/shop", "--timeout=120s")
    assert "Phase:          Succeeded" in running.shell(test, cwd=shop)
    [check] = [line for line in commands("kubectl exec") if "deploy/shop" in line]
    assert "customer" in running.shell(check, cwd=shop)


def test_the_app_was_started_with_a_token_in_hand(running: Cluster, shop: Path) -> None:
    for pod in running.items("pods", "--namespace=shop", "--selector=app.kubernetes.io/name=example-app"):
        status = pod["status"]
        [sidecar], [app] = status["initContainerStatuses"], status["containerStatuses"]
        assert sidecar["started"] is True
        assert (sidecar["restartCount"], app["restartCount"]) == (0, 0)
        events = _events(running, pod, PROXY)
        issued = next(each for each in events if each["event"] == "token_refreshed")
        assert issued["timestamp"] < app["state"]["running"]["startedAt"].replace("Z", ".999Z")
        assert {call["outcome"] for call in _calls(running, pod)} == {200}


def test_status_is_reached_through_the_api_server(running: Cluster, shop: Path) -> None:
    [forward] = commands("kubectl port-forward")
    assert [forward] == commands("kubectl port-forward", (ROOT / "docs/operations.md").read_text("utf-8"))
    [status] = commands("curl")
    with subprocess.Popen(
        running.entering(*forward.replace("POD", _pod(running)).split(), "--namespace=shop"),
        env=running.environment,
    ) as forwarding:
        try:
            answer = eventually(lambda: _tried(running, status), "/status")
        finally:
            forwarding.terminate()
    assert json.loads(answer)["token"]["state"] == "fresh"


def test_the_runbooks_commands(running: Cluster, shop: Path) -> None:
    pod = _pod(running)
    # So that the log has one.
    unknown = "urllib.request.urlopen('http://localhost:8181/v1/nothing.get', b'{}')"
    within = ("--namespace=shop", pod, "--container=app", "--", "python", "-c")
    with pytest.raises(CommandError, match="404"):
        running.kubectl("exec", *within, f"import urllib.request; {unknown}")
    printed = {}
    for alert, start in (
        ("BitsProxyUpstreamErrors", "kubectl logs"),
        ("BitsProxyCredentialsUnreadable", "kubectl describe secret"),
        ("BitsProxyDown", "kubectl describe pod"),
    ):
        [line] = commands(start, runbook(alert))
        line = (
            line.replace("POD", pod)
            .replace("NAME", "bits-credentials")
            .replace("kubectl", "kubectl -n shop", 1)
        )
        printed[alert] = eventually(partial(_tried, running, line), line)
    assert '"status": 404' in printed["BitsProxyUpstreamErrors"]
    assert "client_secret:" in printed["BitsProxyCredentialsUnreadable"]
    assert SECRET not in printed["BitsProxyCredentialsUnreadable"]
    assert "Restart Count" in printed["BitsProxyDown"]


def test_a_proxy_that_ended_is_started_again_and_its_log_kept(running: Cluster, shop: Path) -> None:
    pod = _pod(running)
    within = ("--namespace=shop", pod, f"--container={PROXY}", "--", "python", "-c")
    running.kubectl("exec", *within, "import os; os.kill(1, 15)")

    def restarted() -> bool:
        [status] = running.get("pod", pod, "--namespace=shop")["status"]["initContainerStatuses"]
        return bool(status["restartCount"] == 1 and status["started"])

    eventually(restarted, "the proxy's restart")
    [line] = commands("kubectl logs", runbook("BitsProxyDown"))
    printed = running.shell(line.replace("POD", pod).replace("kubectl", "kubectl -n shop", 1), cwd=shop)
    assert '"event": "stopped"' in printed
    # The next tests need a pod that always had its proxy.
    running.kubectl("delete", "--namespace=shop", "pod", pod, "--timeout=60s")
    running.kubectl("rollout", "status", "--namespace=shop", "deploy/shop", "--timeout=120s")


def test_no_call_fails_while_the_kubelet_brings_another_secret(running: Cluster, shop: Path) -> None:
    pod = running.items("pods", "--namespace=shop", "--selector=app.kubernetes.io/name=example-app")[0]
    _emulator_is_told(running, "rotate", {"client_secret": NEXT_SECRET})
    (shop / "client_secret").write_text(f"{NEXT_SECRET}\n")
    [rotate] = [line for line in commands("kubectl create secret") if "dry-run" in line]
    running.shell(rotate, cwd=shop)
    eventually(
        lambda: [e for e in _events(running, pod, PROXY) if e.get("reason") == "credentials"],
        "the new secret in use",
    )
    [logs] = [
        line.replace(" --follow", "") for line in commands("kubectl logs") if "grep credentials" in line
    ]
    # It picks one of the two pods, which may be the other one.
    assert "credentials_changed" in eventually(lambda: _tried(running, logs), logs)
    _emulator_is_told(running, "revoke", {})
    before = len(_calls(running, pod))
    eventually(lambda: len(_calls(running, pod)) > before + 20, "further calls")
    assert {call["outcome"] for call in _calls(running, pod)} == {200}


def test_the_proxy_ends_last(running: Cluster, shop: Path) -> None:
    pod = running.items("pods", "--namespace=shop", "--selector=app.kubernetes.io/name=example-app")[0]
    name = pod["metadata"]["name"]
    told: dict[str, str] = {}

    def follow(container: str) -> None:
        told[container] = running.kubectl(
            "logs", "--namespace=shop", name, f"--container={container}", "--follow"
        )

    followers = [threading.Thread(target=follow, args=(each,)) for each in ("app", PROXY)]
    for each in followers:
        each.start()
    began = time.time()
    running.kubectl("delete", "--namespace=shop", "pod", name, "--timeout=60s")
    for each in followers:
        each.join()
    assert time.time() - began < 15
    calls = [json.loads(line) for line in told["app"].splitlines()]
    assert {call["outcome"] for call in calls} == {200}
    assert calls[-1]["at"] > began, "it called after it was told to stop"
    last = json.loads(told[PROXY].splitlines()[-1])
    assert (last["event"], last["cut"]) == ("stopped", 0)


def test_a_job_ends_when_its_own_container_does(running: Cluster, shop: Path) -> None:
    template = running.get("deployment", "shop", "--namespace=shop")["spec"]["template"]
    del template["metadata"]
    [app] = template["spec"]["containers"]
    app["env"].append({"name": "CALLS", "value": "5"})
    template["spec"]["restartPolicy"] = "Never"
    for probe in ("readinessProbe", "livenessProbe"):
        del app[probe]
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "once", "namespace": "shop"},
        "spec": {"template": template, "backoffLimit": 0},
    }
    running.kubectl("apply", "--filename=-", given=json.dumps(job))
    running.kubectl("wait", "--namespace=shop", "--for=condition=Complete", "job/once", "--timeout=60s")
    lines = running.kubectl("logs", "--namespace=shop", "job/once", "--container=app").splitlines()
    assert [json.loads(line)["outcome"] for line in lines] == [200] * 5


def test_as_a_gateway(running: Cluster, shop: Path) -> None:
    [create] = [line for line in commands("kubectl create secret") if "--namespace bits" in line]
    running.shell(create, cwd=shop)
    [install, test] = [line for line in commands("helm") if "--namespace bits" in line]
    running.shell(install, cwd=shop)
    running.kubectl("rollout", "status", "--namespace=bits", "deploy/bits-auth-proxy", "--timeout=120s")
    running.publish()
    assert '200 {"customerId": "bits:customer::' in running.shell(test, cwd=shop)


def test_no_call_fails_while_the_gateway_is_rolled_out_anew(running: Cluster, shop: Path) -> None:
    running.kubectl("apply", "--filename=-", given=json.dumps(_client()))
    running.kubectl("wait", "--namespace=bits", "--for=condition=Ready", "pod/client", "--timeout=60s")
    pod = running.get("pod", "client", "--namespace=bits")
    running.kubectl("rollout", "restart", "--namespace=bits", "deploy/bits-auth-proxy")
    running.kubectl("rollout", "status", "--namespace=bits", "deploy/bits-auth-proxy", "--timeout=120s")

    def one_generation() -> bool:
        return (
            len(
                running.items("pods", "--namespace=bits", "--selector=app.kubernetes.io/name=bits-auth-proxy")
            )
            == 2
        )

    eventually(one_generation, "the old pods' end")
    before = len(_calls(running, pod))
    eventually(lambda: len(_calls(running, pod)) > before + 20, "further calls")
    calls = _calls(running, pod)
    print(f"{len(calls)} calls while the gateway was rolled out anew")
    assert {call["outcome"] for call in calls} == {200}
    running.kubectl("delete", "--namespace=bits", "pod", "client", "--wait=false")


def test_installed_again_nothing_changes(running: Cluster, shop: Path) -> None:
    [install] = [line for line in commands("helm upgrade") if "--namespace bits" in line]

    def generation() -> int:
        found: int = running.get("deployment", "bits-auth-proxy", "--namespace=bits")["metadata"][
            "generation"
        ]
        return found

    before = generation()
    running.shell(install, cwd=shop)
    assert generation() == before
    running.shell(f"{install} --set settings.BITS_ACCESS_LOG=all", cwd=shop)
    assert generation() == before + 1
    running.kubectl("rollout", "status", "--namespace=bits", "deploy/bits-auth-proxy", "--timeout=120s")


def test_turning_the_autoscaler_on_takes_no_pod_away(running: Cluster, shop: Path) -> None:
    [install] = [line for line in commands("helm upgrade") if "--namespace bits" in line]
    chosen = ("--namespace=bits", "--selector=app.kubernetes.io/name=bits-auth-proxy")

    def pods() -> set[str]:
        return {pod["metadata"]["name"] for pod in running.items("pods", *chosen)}

    def fixed(number: int) -> bool:
        status = running.get("deployment", "bits-auth-proxy", "--namespace=bits")["status"]
        return bool(len(pods()) == number == status.get("readyReplicas"))

    running.shell(f"{install} --set gateway.replicas.min=3,gateway.replicas.max=3", cwd=shop)
    eventually(partial(fixed, 3), "three pods")
    before = pods()
    running.shell(f"{install} --set gateway.replicas.min=3", cwd=shop)
    until = time.monotonic() + 3
    while time.monotonic() < until:
        assert pods() == before
    [scaler] = running.items("horizontalpodautoscalers", "--namespace=bits")
    assert scaler["spec"]["minReplicas"] == 3


def test_the_app_waits_for_the_proxy_as_long_as_the_grace_says_and_no_longer(
    running: Cluster, shop: Path
) -> None:
    nobody = f"http://{NODE}:9"
    settings = f"settings.BITS_API_URL={nobody},{PROXY}.settings.BITS_STARTUP_GRACE=4"
    running.helm(
        "upgrade", "--install", "late", str(shop / "shop"), "--namespace=bits", f"--set={PROXY}.{settings}"
    )
    running.kubectl("rollout", "status", "--namespace=bits", "deploy/late", "--timeout=60s")
    for pod in running.items("pods", "--namespace=bits", "--selector=app.kubernetes.io/instance=late"):
        [proxy], [app] = pod["status"]["initContainerStatuses"], pod["status"]["containerStatuses"]
        began, served = (
            datetime.fromisoformat(each["state"]["running"]["startedAt"]) for each in (proxy, app)
        )
        assert 3 <= (served - began).total_seconds() <= 15
    running.helm("uninstall", "late", "--namespace=bits", "--wait")


@pytest.mark.parametrize(("release", "namespace"), [("shop", "shop"), ("bits-auth-proxy", "bits")])
def test_uninstalled_nothing_is_left(running: Cluster, shop: Path, release: str, namespace: str) -> None:
    running.helm("uninstall", release, f"--namespace={namespace}", "--wait", "--timeout=90s")
    kinds = (
        "all,serviceaccounts,configmaps,secrets,networkpolicies,poddisruptionbudgets,horizontalpodautoscalers"
    )

    def left() -> set[str]:
        found = running.kubectl("get", kinds, f"--namespace={namespace}", "--output=name").split()
        # Helm keeps the test's pod for its log. The Secret and the Job do not belong to Helm.
        others = (
            "secret/bits-credentials",
            "job.batch/once",
            "pod/once-",
            f"pod/{_test_pod(release)}",
            "pod/client",
        )
        namespaces = ("serviceaccount/default", "configmap/kube-root-ca.crt")
        return {each for each in found if not each.startswith(others + namespaces)}

    eventually(lambda: not left(), "an empty namespace")


def test_when_the_certificate_expires(running: Cluster, tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "tls.pem")
    settings = {
        "BITS_LISTEN": "localhost:8443",
        "BITS_LISTEN_TLS__CERT": str(tmp_path / "tls.pem"),
        "BITS_LISTEN_TLS__KEY": str(tmp_path / "tls.pem"),
        "BITS_CLIENT_ID": "bits:client::3f1c",
        "BITS_CLIENT_SECRET": SECRET,
    }
    [line] = commands("openssl", runbook("BitsProxyCertificateNotRenewed"))
    serving = running.entering(sys.executable, "-m", "bits_auth_proxy", "run")
    with subprocess.Popen(serving, env={**running.environment, **settings}, cwd=ROOT) as proxy:
        try:
            assert eventually(lambda: _tried(running, line), "an end").startswith("notAfter=")
        finally:
            proxy.terminate()


def _tried(running: Cluster, line: str) -> str:
    with contextlib.suppress(CommandError):
        return running.shell(line, cwd=ROOT)
    return ""


def _pod(running: Cluster) -> str:
    """Return the name of one pod of the shop."""
    name: str = running.items("pods", "--namespace=shop", "--selector=app.kubernetes.io/name=example-app")[0][
        "metadata"
    ]["name"]
    return name


def _test_pod(release: str) -> str:
    return f"{release}-test" if release == PROXY else f"{release}-{PROXY}-test"


def _values(start: str) -> dict[str, Any]:
    """Return the page's values with this beginning."""
    blocks = [
        textwrap.dedent(block)
        for block in re.findall(r"^ *```yaml\n(.*?)^ *```", PAGE, re.DOTALL | re.MULTILINE)
    ]
    block = next(block for block in blocks if block.startswith(start))
    values: dict[str, Any] = yaml.safe_load(block.replace("registry.example", REGISTRY))
    return values


def _emulator() -> list[dict[str, Any]]:
    labels, metadata = {"app": "emulator"}, {"namespace": "bits-api"}
    env = {
        "BITS_EMULATOR__LISTEN": "0.0.0.0:8090",
        "BITS_EMULATOR__CLIENT_ID": "bits:client::3f1c",
        "BITS_EMULATOR__CLIENT_SECRET": SECRET,
    }
    container = {
        **_confined("emulator", "bits-auth-proxy:0.1.0"),
        "args": ["emulator"],
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "readinessProbe": {"tcpSocket": {"port": 8090}, "periodSeconds": 1},
    }
    ports = [{"port": 8090, "targetPort": 8090}]
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**metadata, "name": "emulator", "labels": labels},
            "spec": {"automountServiceAccountToken": False, "containers": [container]},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {**metadata, "name": "api"},
            "spec": {"selector": labels, "ports": ports},
        },
    ]


def _client() -> dict[str, Any]:
    url = {"name": "BITS_URL", "value": "http://bits-auth-proxy:8080"}
    labels = {"bits-auth-proxy/client": "true"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "client", "namespace": "bits", "labels": labels},
        "spec": {
            "automountServiceAccountToken": False,
            "containers": [{**_confined("app", "app:1.0.0"), "env": [url]}],
        },
    }


def _confined(name: str, image: str) -> dict[str, Any]:
    return {
        "name": name,
        "image": f"{REGISTRY}/{image}",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def _emulator_is_told(running: Cluster, what: str, body: dict[str, str]) -> None:
    call = f"urllib.request.urlopen('http://127.0.0.1:8090/_emulator/{what}', {json.dumps(body).encode()!r})"
    within = ("--namespace=bits-api", "emulator", "--", "python", "-c", f"import urllib.request; {call}")
    running.kubectl("exec", *within)


def _events(running: Cluster, pod: dict[str, Any], container: str) -> list[dict[str, Any]]:
    named = f"--namespace={pod['metadata']['namespace']}", pod["metadata"]["name"], f"--container={container}"
    lines = running.kubectl("logs", *named).splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def _calls(running: Cluster, pod: dict[str, Any]) -> list[dict[str, Any]]:
    return _events(running, pod, "app")
