"""The fixture that the tests share: one cluster, with the image in its registry."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.cluster.cluster import PAUSE, REGISTRY, Cluster, cluster
from tools.image.podman import build, podman

_PAUSE = 'FROM scratch\nCOPY catatonit /catatonit\nENTRYPOINT ["/catatonit", "-P"]\n'
# An app that is ready immediately, keeps sending requests, sends one more at SIGTERM, and prints responses.
_APP = """\
import http.server, json, os, signal, sys, threading, time, urllib.request
stopped = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopped.set())
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204)
        self.end_headers()
    def log_message(self, *_):
        pass
threading.Thread(target=http.server.HTTPServer(("", 8080), Ready).serve_forever, daemon=True).start()
calls = int(os.environ.get("CALLS", "1000000"))
while calls:
    calls = 0 if stopped.is_set() else calls - 1
    began = time.time()
    try:
        url = os.environ["BITS_URL"] + "/oauth2/userinfo"
        with urllib.request.urlopen(url, timeout=30) as answer:
            outcome = answer.status
    except Exception as error:
        outcome = repr(error)
    print(json.dumps({"at": began, "outcome": outcome}), flush=True)
    stopped.wait(0.05)
"""
_APP_IMAGE = 'FROM {image}\nCOPY app.py /app.py\nENTRYPOINT ["python", "/app.py"]\n'


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    image = build()
    directory = tmp_path_factory.mktemp("images")
    (directory / "app.py").write_text(_APP, "utf-8")
    (directory / "catatonit").write_bytes(Path("/usr/bin/catatonit").read_bytes())
    (directory / "catatonit").chmod(0o755)
    images = {image: f"{REGISTRY}/bits-auth-proxy:0.1.0"}
    for recipe, name in ((_PAUSE, PAUSE), (_APP_IMAGE.format(image=image), f"{REGISTRY}/app:1.0.0")):
        (directory / "Containerfile").write_text(recipe, "utf-8")
        podman(
            "build", "--format=docker", "--pull=never", "--isolation=chroot", f"--tag={name}", str(directory)
        )
        images[name] = name
    with cluster() as made:
        for local, name in images.items():
            made.run("podman", "push", "--tls-verify=false", local, f"docker://{name}")
        made.start_node()
        yield made
