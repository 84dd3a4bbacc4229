"""The example chart's pod: its app calls localhost, whatever happens to the Secret.

All tests share one pod, because podman takes seconds to remove one. The test that stops it comes last.
"""

import json
import time
from collections.abc import Iterator
from itertools import dropwhile
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.packaging.chart.engine import EXAMPLE, PROXY, documents, one
from tests.support.mounts import mount
from tests.system.containers.containers import eventually
from tests.system.kubernetes.playing import API, Pod, emulator, playing
from tools.image.podman import podman

ID = "bits:client::3f1c"
SECRET = "canary-secret-9d2f7c-of-the-pod"
NEXT_SECRET = "canary-secret-1b83aa-of-the-pod"
OK = 200
ADMIN = "http://127.0.0.1:9090"
# Keeps sending requests and prints the responses; stops like a well-behaved app.
_APP = """\
import json, os, signal, sys, time, urllib.error, urllib.request
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
url = os.environ["BITS_URL"] + "/v1/applications.create"
body = b'{"workflowId":"bits:workflow::8abe317f-6d54-4949-8ecd-245efb4fa05d","countryCode":"SE",' \\
    b'"redirectUrl":"https://acme.example/done"}'
while True:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, method="POST"), timeout=30) as answer:
            outcome = answer.status
    except Exception as error:
        outcome = f"{error!r}"
    print(json.dumps({"event": "called", "outcome": outcome}), flush=True)
    time.sleep(0.02)
"""


class Running(NamedTuple):
    """A pod, and the directory of its Secret."""

    pod: Pod
    secret: Path

    def ask(self, method: str, url: str, body: str = "") -> tuple[int, str]:
        """Send a request from the app's container; return status and body of the response."""
        status, _, text = self.pod["app"].ask(method, url, body)
        return status, text

    def outcomes(self) -> list[object]:
        """The app's responses from its first success on. Here, nothing makes it wait for the sidecar."""
        outcomes = [event["outcome"] for event in self.pod["app"].events]
        return list(dropwhile(lambda outcome: outcome != OK, outcomes))

    def let_it_call(self) -> None:
        """Wait until the app has had a success."""
        eventually(self.outcomes, "a 200", self.pod["app"], self.pod["bits-auth-proxy"])

    def metric(self, name: str) -> float:
        """Return the value of a metric."""
        lines = self.ask("GET", f"{ADMIN}/metrics")[1].splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def secret_files(client_secret: str) -> dict[str, bytes]:
    return {"client_id": ID.encode(), "client_secret": client_secret.encode()}


@pytest.fixture(scope="module")
def running(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    repository, _, tag = image.rpartition(":")
    values = {PROXY: {"image": {"repository": repository, "tag": tag}, "settings": {"BITS_API_URL": API}}}
    rendered = one(documents(EXAMPLE, {**values, "image": image}), "Deployment")["spec"]["template"]
    [app] = rendered["spec"]["containers"]
    app |= {"command": ["python", "-c", _APP]}
    directory = tmp_path_factory.mktemp("example")
    secret = directory / "secret"
    secret.mkdir()
    mount(secret, secret_files(SECRET))
    containers = [emulator(app, ID, SECRET)]
    with playing("example", rendered, {"bits-credentials": secret}, directory, containers=containers) as pod:
        pod["bits-auth-proxy"].event("token_refreshed")
        yield Running(pod, secret)


def test_the_app_calls_localhost_and_the_token_is_put_on(running: Running) -> None:
    assert running.ask("GET", f"{ADMIN}/startupz") == (200, "started\n")
    assert running.ask("GET", f"{ADMIN}/livez")[0] == 200
    status, body = running.ask("GET", "http://localhost:8181/oauth2/userinfo")
    assert status == 200
    assert json.loads(body)["customerId"].startswith("bits:customer::")
    assert running.ask("GET", f"{API}/oauth2/userinfo")[0] == 401, "the API asks for one"
    running.let_it_call()
    # The cluster reaches probes and metrics. Only this pod reaches everything else.
    address = running.pod.address
    assert running.ask("GET", "http://127.0.0.1:9091/status")[0] == 200
    with pytest.raises(Exception, match="refused"):
        running.ask("GET", f"http://{address}:9091/status")
    assert running.ask("GET", f"http://{address}:9090/metrics")[0] == 200
    assert running.ask("GET", f"http://{address}:9090/status")[0] == 404
    with pytest.raises(Exception, match="refused"):
        running.ask("GET", f"http://{address}:8181/oauth2/userinfo")


def test_check_says_from_inside_whether_the_way_is_clear(running: Running) -> None:
    lines = running.pod["bits-auth-proxy"].run("bits-auth-proxy", "check").splitlines()
    assert [step for step in ("dns", "tcp", "token", "owner") if any(step in line for line in lines)] == [
        "dns",
        "tcp",
        "token",
        "owner",
    ]


def test_the_containers_have_no_rights(running: Running) -> None:
    for name in ("bits-auth-proxy", "app"):
        status = Path("/proc", str(running.pod[name].pid), "status").read_text("utf-8")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert set(fields["Uid"].split()) == {{"bits-auth-proxy": "65532", "app": "10001"}[name]}
        assert {int(fields[each], 16) for each in ("CapEff", "CapPrm", "CapBnd")} == {0}
        assert fields["NoNewPrivs"] == "1"
        assert (
            podman("inspect", "--format={{.HostConfig.ReadonlyRootfs}}", f"{running.pod.name}-{name}")
            == "true\n"
        )
    assert (
        running.pod["bits-auth-proxy"].run("python", "-c", "import os; print(os.access('/', os.W_OK))")
        == "False\n"
    )


def test_no_call_fails_while_the_secret_is_rotated(running: Running) -> None:
    proxy = running.pod["bits-auth-proxy"]
    running.let_it_call()
    before = len(running.outcomes())
    issued = running.metric("bits_proxy_token_refreshes_total")
    # A rotation: the API gets another secret, then the Secret changes, and finally old tokens are revoked.
    running.ask("POST", f"{API}/_emulator/rotate", json.dumps({"client_secret": NEXT_SECRET}))
    mount(running.secret, secret_files(NEXT_SECRET))
    proxy.event("credentials_changed")
    eventually(lambda: running.metric("bits_proxy_token_refreshes_total") > issued, "a refresh", proxy)
    running.ask("POST", f"{API}/_emulator/revoke")
    eventually(lambda: running.metric("bits_proxy_retries_total") > 0, "the call is sent again", proxy)
    time.sleep(1)
    outcomes = running.outcomes()[before:]
    print(f"{len(outcomes)} calls while the secret was rotated")
    assert len(outcomes) > 50
    assert set(outcomes) == {OK}
    assert "credentials_readable_by_others" not in {event["event"] for event in proxy.events}
    assert SECRET not in proxy.logs
    assert NEXT_SECRET not in proxy.logs


def test_it_stops_cleanly_after_the_app(running: Running) -> None:
    # Kubernetes stops a native sidecar after the other containers have ended.
    running.let_it_call()
    for name in ("app", "bits-auth-proxy"):
        running.pod[name].kill("TERM")
        assert running.pod[name].ended() == 0
    assert running.pod["bits-auth-proxy"].drained_for() < 5
    assert set(running.outcomes()) == {OK}, "it was served to its end"
    stopped = running.pod["bits-auth-proxy"].events[-1]
    assert (stopped["event"], stopped["cut"]) == ("stopped", 0)
