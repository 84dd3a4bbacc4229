"""Pods of the charts, run by `podman kube play`.

This differs from a cluster in the following ways:

- Volumes are directories of the test. It writes and changes Secrets in them like the kubelet.
- This podman has no native sidecars. The sidecar is one of the pod's ordinary containers, and no container
  has probes. The tests send the requests of the probes.
- The emulator runs in the pod as another container, in place of the Bits API.
- A container that has ended is not started again.
- The app uses the image of the proxy, for its Python, with a command of the test.
- A Service is a host name for the gateway's address in the pods of clients.
"""

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from tests.packaging.chart.engine import Document
from tests.support import evidence
from tests.system.containers.containers import Container, unique
from tools.image.podman import podman

API: Final = "http://127.0.0.1:8090"
_CLUSTERS_OWN: Final = ("startupProbe", "livenessProbe", "readinessProbe", "restartPolicy")


class Pod:
    """A running pod."""

    def __init__(self, name: str) -> None:
        self.name: Final = name

    def __getitem__(self, container: str) -> Container:
        return Container(f"{self.name}-{container}")

    @property
    def address(self) -> str:
        """Its address in podman's network."""
        infra = podman("pod", "inspect", "--format={{.InfraContainerID}}", self.name).strip()
        address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return podman("inspect", f"--format={address}", infra).strip()


@contextlib.contextmanager
def playing(
    name: str, rendered: Document, volumes: dict[str, Path], directory: Path, **spec: Any
) -> Iterator[Pod]:
    """Run a rendered pod under a name; remove it at the end.

    `volumes` maps names to directories. The manifest is written to `directory`. `spec` holds more members of
    the pod's spec; its `containers` are added to the others.
    """
    name = unique(name)
    pod = _playable(rendered, volumes, spec)
    manifest = directory / f"{name}.yaml"
    manifest.write_text(
        yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod}), "utf-8"
    )
    podman("kube", "play", str(manifest))
    for container in pod["containers"]:
        evidence.keep(f"{name}-{container['name']}", Pod(name)[container["name"]].printed, lasting=True)
    try:
        yield Pod(name)
    finally:
        podman("pod", "rm", "--force", "--time=0", name)


def emulator(like: Document, client_id: str, client_secret: str) -> Document:
    """Return the emulator's container, with the same rights as another container."""
    env = {"BITS_EMULATOR__CLIENT_ID": client_id, "BITS_EMULATOR__CLIENT_SECRET": client_secret}
    return {
        "name": "emulator",
        "args": ["emulator"],
        "env": [{"name": variable, "value": value} for variable, value in env.items()],
        **{key: like[key] for key in ("image", "securityContext", "resources")},
    }


def _playable(rendered: Document, volumes: dict[str, Path], more: dict[str, Any]) -> Document:
    spec: Document = copy.deepcopy(rendered["spec"])
    added = more.get("containers", [])
    containers = [*spec.pop("initContainers", []), *spec["containers"], *added]
    return {
        **spec,
        **more,
        "restartPolicy": "Never",
        "containers": [
            {key: value for key, value in container.items() if key not in _CLUSTERS_OWN}
            for container in containers
        ],
        "volumes": [
            {"name": name, "hostPath": {"path": str(volumes[name]), "type": "Directory"}}
            for name in (volume["name"] for volume in spec.get("volumes", []))
        ],
    }
