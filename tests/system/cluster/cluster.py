"""A cluster of one node: Kubernetes' control plane, scheduler, kubelet and kube-proxy, etcd, containerd.

Everything runs in its own namespaces for processes, mounts and network, and ends with them. This cluster
differs from others in the following ways:

- The registry is `localhost:5000`.
- dnsmasq replaces CoreDNS. It knows the Services that existed when `publish` was called.
- Nothing enforces NetworkPolicies, and there is no metrics server.
- The kubelet does not manage control groups, and it updates a changed Secret in pods within ten seconds.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.system.cluster.programs import build
from tests.system.containers.containers import eventually
from tools.image.podman import environment

NODE: Final = "10.77.0.1"
"""The address of the node."""
REGISTRY: Final = "localhost:5000"
PAUSE: Final = f"{REGISTRY}/pause"
"""The image of the process that keeps the namespaces of a pod."""
_SERVER: Final = "https://127.0.0.1:6443"

_CONTAINERD: Final = """\
version = 2
root = "{directory}/containerd"
state = "{directory}/containerd-state"
[grpc]
  address = "{directory}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "{pause}"
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{directory}/cni"
"""
# Each pod has its own link to the node, so that kube-proxy sees all traffic.
_POD_NETWORK: Final = {
    "cniVersion": "0.4.0",
    "name": "pods",
    "plugins": [
        {
            "type": "ptp",
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.244.0.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": "{directory}/addresses",
            },
        }
    ],
}
_KUBELET: Final = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "address": NODE,
    "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
    "authorization": {"mode": "AlwaysAllow"},
    "cgroupDriver": "cgroupfs",
    "cgroupsPerQOS": False,
    "enforceNodeAllocatable": [],
    "failCgroupV1": False,
    "failSwapOn": False,
    "localStorageCapacityIsolation": False,
    "evictionHard": {"nodefs.available": "0%", "imagefs.available": "0%"},
    "clusterDNS": [NODE],
    "clusterDomain": "cluster.local",
    "syncFrequency": "5s",
}
_REGISTRY: Final = """\
version: 0.1
storage:
  filesystem:
    rootdirectory: {directory}/registry
http:
  addr: localhost:5000
"""


class CommandError(Exception):
    """A command failed."""

    def __init__(self, code: int, command: str, output: str) -> None:
        super().__init__(f"{command}: exit {code}\n{output}")
        self.output: Final = output


class Cluster:
    """Runs commands in the cluster's network, as its administrator."""

    def __init__(self, directory: Path, programs: Path) -> None:
        self._directory: Final = directory
        self.definitions: Final = sorted(programs.glob("*.yaml"))
        """Files with the custom resource definitions of operators."""
        self._started: Final[list[subprocess.Popen[bytes]]] = []
        self.environment: Final = {
            **environment(),
            "HOME": str(directory),
            "KUBECONFIG": str(directory / "kubeconfig"),
            "PATH": f"{programs}:{os.environ['PATH']}:/usr/sbin:/sbin",
        }
        # It ends with the tests, even if they are killed.
        holder = "setpriv --pdeathsig=KILL unshare --pid --net --mount-proc --fork --kill-child catatonit -P"
        self._holder: Final = subprocess.Popen(holder.split(), stderr=subprocess.DEVNULL)
        children = Path("/proc", str(self._holder.pid), "task", str(self._holder.pid), "children")
        self._pid: Final = int(eventually(lambda: children.read_text("utf-8"), "namespaces"))

    def entering(self, *command: str, everything: bool = False) -> list[str]:
        """Return a command line that runs a command in the cluster's network, or in all its namespaces."""
        others = ("--pid", "--mount", f"--wdns={self._directory}") if everything else ()
        return ["nsenter", f"--target={self._pid}", "--net", *others, "--", *command]

    def tell(
        self, *command: str, given: str = "", cwd: Path | None = None, timeout: float = 180
    ) -> tuple[str, str]:
        """Run a command; return standard output and error. Raises CommandError, with both, if it fails."""
        done = subprocess.run(
            self.entering(*command),
            cwd=cwd or self._directory,
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        if done.returncode != 0:
            raise CommandError(done.returncode, " ".join(command), done.stdout + done.stderr)
        return done.stdout, done.stderr

    def run(self, *command: str, given: str = "", cwd: Path | None = None) -> str:
        """Run a command; return its standard output. Raises CommandError if it fails."""
        return self.tell(*command, given=given, cwd=cwd)[0]

    def shell(self, line: str, cwd: Path) -> str:
        """Run a line in a shell, in which a pipe fails if any part fails."""
        return self.run("bash", "-o", "pipefail", "-c", line, cwd=cwd)

    def kubectl(self, *arguments: str, given: str = "") -> str:
        return self.run("kubectl", *arguments, given=given)

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return the result of `kubectl get`."""
        found: dict[str, Any] = json.loads(self.kubectl("get", "--output=json", *arguments))
        return found

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        """Return the items in the result of `kubectl get`."""
        found: list[dict[str, Any]] = self.get(*arguments)["items"]
        return found

    def helm(self, *arguments: str, given: str = "") -> str:
        return self.run("helm", *arguments, given=given)

    def namespace(self, name: str) -> None:
        """Create a namespace that accepts only restricted pods."""
        labels = {
            "pod-security.kubernetes.io/enforce": "restricted",
            "pod-security.kubernetes.io/warn": "restricted",
        }
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        self.kubectl("apply", "--filename=-", given=json.dumps(made))
        # Pods are rejected until there is one.
        eventually(lambda: self.items("serviceaccounts", f"--namespace={name}"), "a service account")

    def publish(self) -> None:
        """Make the names of the Services resolvable."""
        services = (each for each in self.items("services", "--all-namespaces"))
        (self._directory / "names" / "services").write_text(
            "".join(
                "{spec[clusterIP]} {metadata[name]}.{metadata[namespace]}.svc.cluster.local\n".format(**each)
                for each in services
            ),
            "utf-8",
        )

    def printed(self, program: str) -> str:
        """Return the output of one of the cluster's programs."""
        return (self._directory / f"{program}.log").read_text("utf-8", errors="replace")

    def start(self) -> None:
        """Start the control plane; return when the API is served."""
        self._write("names/services", "")
        self._write("registry.yml", _REGISTRY.format(directory=self._directory))
        network = json.dumps(_POD_NETWORK).replace("{directory}", str(self._directory))
        self._write("cni/pods.conflist", network)
        self._write("containerd.toml", _CONTAINERD.format(directory=self._directory, pause=PAUSE))
        administrator, node = secrets.token_hex(), secrets.token_hex()
        self._write(
            "users.csv",
            f"{administrator},admin,admin,system:masters\n{node},system:node:node,node,system:nodes\n",
        )
        self._write("kubeconfig", json.dumps(self._kubeconfig(administrator)))
        self._write("kubelet.kubeconfig", json.dumps(self._kubeconfig(node)))
        sockets = {"containerRuntimeEndpoint": f"unix://{self._directory}/containerd.sock"}
        logs = {"podLogsDir": f"{self._directory}/pod-logs"}
        self._write("kubelet.yaml", json.dumps({**_KUBELET, **sockets, **logs}))
        self.run("openssl", "genrsa", "-out", "service-accounts.key", "2048")
        for line in (
            "ip link set lo up",
            f"ip address add {NODE}/32 dev lo",
            "echo 1 > /proc/sys/net/ipv4/ip_forward",
        ):
            self.run("sh", "-c", line)
        self._program("docker-registry", "serve", "registry.yml")
        self._program("etcd", "--data-dir=etcd", "--unsafe-no-fsync")
        self._program(
            "kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            "--bind-address=127.0.0.1",
            f"--advertise-address={NODE}",
            "--cert-dir=certificates",
            "--token-auth-file=users.csv",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-account-key-file=service-accounts.key",
            "--service-account-signing-key-file=service-accounts.key",
        )
        eventually(self._ready, "the API")
        alone = ("--kubeconfig=kubeconfig", "--leader-elect=false", "--secure-port=0")
        keys = "--service-account-private-key-file=service-accounts.key"
        self._program("kube-controller-manager", *alone, keys)
        self._program("kube-scheduler", *alone)
        self._program(
            "kube-proxy", "--kubeconfig=kubeconfig", "--proxy-mode=nftables", "--hostname-override=node"
        )

    def start_node(self) -> None:
        """Start the node's programs; return when pods can run. The registry must hold the pause image."""
        self._program(
            "dnsmasq",
            *f"--no-daemon --no-resolv --no-hosts --local=/#/ --listen-address={NODE}".split(),
            "--bind-interfaces",
            "--user=root",
            "--pid-file=",
            f"--hostsdir={self._directory}/names",
        )
        self._program("containerd", "--config=containerd.toml")
        eventually((self._directory / "containerd.sock").exists, "containerd")
        self._program(
            "kubelet",
            "--config=kubelet.yaml",
            "--kubeconfig=kubelet.kubeconfig",
            "--hostname-override=node",
            f"--node-ip={NODE}",
            f"--root-dir={self._directory}/kubelet",
            "--cert-dir=kubelet-certificates",
        )
        eventually(lambda: self.items("nodes"), "the node")
        self.kubectl("wait", "--for=condition=Ready", "node/node", "--timeout=60s")

    def end(self) -> None:
        """Stop everything that was started."""
        os.kill(self._pid, signal.SIGKILL)
        for process in (self._holder, *self._started):
            process.wait()
        # The control groups of ended containers remain.
        for group in Path("/sys/fs/cgroup").glob("**/k8s.io/*/"):
            with contextlib.suppress(OSError):
                group.rmdir()

    def _ready(self) -> bool:
        with contextlib.suppress(CommandError):
            return self.kubectl("get", "--raw=/readyz") == "ok"
        return False

    def _program(self, name: str, *arguments: str) -> None:
        with (self._directory / f"{name}.log").open("wb") as log:
            command = self.entering(name, *arguments, everything=True)
            self._started.append(
                subprocess.Popen(
                    command, cwd=self._directory, env=self.environment, stdout=log, stderr=subprocess.STDOUT
                )
            )

    def _kubeconfig(self, token: str) -> dict[str, Any]:
        authority = str(self._directory / "certificates/apiserver.crt")
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": _SERVER, "certificate-authority": authority}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "it", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "it",
        }

    def _write(self, name: str, text: str) -> None:
        path = self._directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Run a cluster whose node is not started yet."""
    directory = Path(tempfile.mkdtemp(prefix="bits-cluster-"))
    made = Cluster(directory, build())
    try:
        made.start()
        yield made
    finally:
        made.end()
        shutil.rmtree(directory)
