"""The gateway's pod, and the pod of `helm test` that calls it.

All tests share one pod, because podman takes seconds to remove one. The test that stops it comes last.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme

from tests.packaging.chart.cases import given
from tests.packaging.chart.engine import PROXY, Document, documents, one
from tests.support.mounts import mount
from tests.system.containers.containers import eventually
from tests.system.kubernetes.playing import API, Pod, emulator, playing

ID = "bits:client::3f1c"
SECRET = "canary-secret-9d2f7c-of-the-gateway"
SERVICE = "bits-bits-auth-proxy"
# Keeps asking whether the gateway is ready, sends requests through it, and prints the responses.
_CALLS = f"""\
import contextlib, http.client, json, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
def ask(port, path):
    with contextlib.closing(http.client.HTTPConnection("{SERVICE}", port, timeout=60)) as connection:
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.headers["Connection"], answer.read().decode()
        except (OSError, http.client.HTTPException):
            return None, None, None
while True:
    at, ready = time.time(), ask(9090, "/readyz")
    called = ask(8080, "/oauth2/userinfo")
    print(json.dumps({{"event": "asked", "at": at, "ready": ready, "called": called[:2]}}), flush=True)
    time.sleep(0.05)
"""
# Prints the status of a response over TLS, with a client certificate or without.
_CALL = """\
import ssl, sys, urllib.request
context = ssl.create_default_context(cafile="/tls/ca.crt")
if sys.argv[1:]:
    context.load_cert_chain("/tls/client.pem")
print(urllib.request.urlopen("https://bits-bits-auth-proxy:8080/oauth2/userinfo", context=context).status)
"""


class Gateway(NamedTuple):
    """The gateway's pod and a client's pod, both from the same rendered chart."""

    pod: Pod
    found: list[Document]
    directory: Path

    def aliases(self) -> list[dict[str, Any]]:
        """The name of the Service in the client's pod."""
        return [{"ip": self.pod.address, "hostnames": [SERVICE, "elsewhere"]}]


def rendered(image: str, **values: Any) -> list[Document]:
    repository, _, tag = image.rpartition(":")
    settings = {"settings.BITS_API_URL": API, **values}
    return documents(PROXY, given({"image.repository": repository, "image.tag": tag, **settings}))


@pytest.fixture(scope="module")
def gateway(
    request: pytest.FixtureRequest, image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    found = rendered(image, **getattr(request, "param", {}))
    template = one(found, "Deployment")["spec"]["template"]
    directory = tmp_path_factory.mktemp("gateway")
    volumes = {name: directory / name for name in ("bits-credentials", "bits-tls", "client-tls")}
    for path in volumes.values():
        path.mkdir()
    mount(volumes["bits-credentials"], {"client_id": ID.encode(), "client_secret": SECRET.encode()})
    authority = trustme.CA()
    server, client = authority.issue_cert(SERVICE), authority.issue_cert("a-client")
    trusted = {"ca.crt": authority.cert_pem.bytes()}
    chain = b"".join(pem.bytes() for pem in server.cert_chain_pems)
    key = server.private_key_pem.bytes()
    mount(volumes["bits-tls"], {"tls.crt": chain, "tls.key": key, **trusted})
    mount(volumes["client-tls"], {"client.pem": client.private_key_and_cert_chain_pem.bytes(), **trusted})
    container = emulator(template["spec"]["containers"][0], ID, SECRET)
    with playing("gateway", template, volumes, directory, containers=[container]) as pod:
        pod["bits-auth-proxy"].event("token_refreshed")
        yield Gateway(pod, found, directory)


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[Pod]:
    test = one(gateway.found, "Pod")
    [container] = test["spec"]["containers"]
    waiting = {
        "name": "client",
        "command": ["python", "-c", _CALLS],
        "volumeMounts": [{"name": "client-tls", "mountPath": "/tls"}],
        **{key: container[key] for key in ("image", "securityContext", "resources")},
    }
    spec = {**test["spec"], "containers": [waiting], "volumes": [{"name": "client-tls"}]}
    volumes = {"client-tls": gateway.directory / "client-tls"}
    with playing("client", {"spec": spec}, volumes, gateway.directory, hostAliases=gateway.aliases()) as pod:
        yield pod


def test_helm_test_passes(gateway: Gateway) -> None:
    test = one(gateway.found, "Pod")
    with playing("test", test, {}, gateway.directory, hostAliases=gateway.aliases()) as pod:
        assert pod["call"].ended() == 0
        assert pod["call"].logs.startswith('200 {"customerId": "bits:customer::')


def test_other_pods_get_the_service_the_probes_and_the_metrics(gateway: Gateway, client: Pod) -> None:
    ask = client["client"].ask
    assert ask("GET", f"http://{SERVICE}:8080/oauth2/userinfo")[0] == 200
    assert ask("GET", "http://elsewhere:8080/oauth2/userinfo")[0] == 421, "only by the Service's names"
    assert ask("GET", f"http://{SERVICE}:9090/readyz")[0] == 200
    assert ask("GET", f"http://{SERVICE}:9090/metrics")[0] == 200
    assert ask("GET", f"http://{SERVICE}:9090/status")[0] == 404


def test_it_is_called_still_for_five_seconds_after_it_was_told_to_stop(gateway: Gateway, client: Pod) -> None:
    proxy = gateway.pod["bits-auth-proxy"]
    caller = client["client"]
    eventually(lambda: [each for each in caller.events if each["called"] == [200, None]], "a 200", caller)
    proxy.kill("TERM")
    assert proxy.ended() == 0
    assert proxy.events[-1]["event"] == "stopped"
    assert 5 <= proxy.drained_for() < 15
    served = [
        event["at"]
        for event in caller.events
        if event["ready"][::2] == [503, "draining\n"] and event["called"] == [200, "close"]
    ]
    assert served[-1] - served[0] > 3


@pytest.mark.parametrize(
    "gateway",
    [{"gateway.tls.secretName": "bits-tls", "gateway.tls.clientCertificates": True}],
    indirect=True,
)
def test_clients_with_a_certificate_are_served_over_tls(gateway: Gateway, client: Pod) -> None:
    assert client["client"].run("python", "-c", _CALL, "with a certificate") == "200\n"
    with pytest.raises(Exception, match=r"CERTIFICATE_REQUIRED|certificate required"):
        client["client"].run("python", "-c", _CALL)
