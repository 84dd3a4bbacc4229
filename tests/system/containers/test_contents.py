"""What the image contains, and what its metadata say."""

import json
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import bits_auth_proxy
from tests.system.containers.containers import running, unique
from tools.image.podman import ROOT, debian_python, podman
from tools.release.sbom import as_json, bill_of_materials

SIZE_LIMIT = 100 * 10**6
"""The largest total size of all files in bytes, on Debian's Python."""


@pytest.fixture(scope="module")
def archive(image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file system of a container, as a tar archive."""
    return exported(image, tmp_path_factory.mktemp("image") / "root.tar")


@pytest.fixture(scope="module")
def members(archive: Path) -> dict[str, tarfile.TarInfo]:
    """Everything in the image, by path."""
    with tarfile.open(archive) as tar:
        return {member.name.removeprefix("./"): member for member in tar}


def exported(image: str, archive: Path) -> Path:
    name = unique("contents")
    podman("create", f"--name={name}", image, "none")
    try:
        podman("export", f"--output={archive}", name)
    finally:
        podman("rm", name)
    return archive


def test_it_is_small(members: dict[str, tarfile.TarInfo]) -> None:
    size = sum(member.size for member in members.values() if member.isfile())
    print(f"the image holds {size / 1e6:.1f} MB in {len(members)} files")
    assert size < SIZE_LIMIT


def test_there_is_no_shell_installer_compiler_or_source_tree(members: dict[str, tarfile.TarInfo]) -> None:
    programs = {Path(name).name for name in members if re.match(r"(usr/(local/)?)?s?bin/", name)}
    assert re.sub(r"[0-9.]+", "", " ".join(sorted(programs))).split() == ["python"] * len(programs)
    assert sorted(name for name in members if "/bin/" in name and name.startswith("opt/")) == [
        "opt/bits-auth-proxy/bin/" + name
        for name in ("bits-auth-proxy", "dotenv", "idna", "python", "python3", "python3.11")
    ]
    unwanted = re.compile(
        r"/(pip|ensurepip|setuptools|hatchling|idlelib|tests?)/|\.(c|h|a|pyx|whl)$|^(src|root|home)/."
    )
    assert not [name for name in members if unwanted.search(name)]


def test_nobody_gains_rights_or_changes_a_file(members: dict[str, tarfile.TarInfo]) -> None:
    assert not [name for name, member in members.items() if member.mode & 0o6000]
    # The container engine mounts its own files over these.
    own = ("etc/hostname", "etc/hosts", "etc/resolv.conf", "dev", "proc", "sys", "run", "tmp")
    files = {name: member for name, member in members.items() if not name.startswith(own)}
    assert not [name for name, member in files.items() if (member.uid, member.gid) != (0, 0)]
    assert not [name for name, member in files.items() if member.mode & 0o022 and not member.issym()]


def test_all_is_compiled_and_none_of_it_at_run_time(image: str, members: dict[str, tarfile.TarInfo]) -> None:
    sources = [Path(name) for name in members if name.endswith(".py")]
    assert len(sources) > 800
    compiled = {name for name in members if name.endswith(".pyc")}
    cached = [path.parent / "__pycache__" / f"{path.stem}.cpython-311.pyc" for path in sources]
    assert not [str(path) for path in cached if str(path) not in compiled]
    # Even root, on a writable file system, writes nothing there.
    with running("writing", "--user=0", image, "emulator") as container:
        container.run("bits-auth-proxy", "config")
        changed = [
            line for line in podman("diff", container.name).splitlines() if "/opt" in line or "/usr" in line
        ]
    assert not changed


def test_it_trusts_whom_the_base_trusts(members: dict[str, tarfile.TarInfo], image: str) -> None:
    """It does not trust the authorities of the machine that built it, which are mounted in the build."""
    read = "print(open('/etc/ssl/certs/ca-certificates.crt').read())"
    theirs, ours = (
        podman("run", "--rm", "--entrypoint=python3", each, "-c", read) for each in (debian_python(), image)
    )
    assert theirs == ours
    counted = "import ssl; print(len(ssl.create_default_context().get_ca_certs()))"
    assert int(podman("run", "--rm", "--entrypoint=python", image, "-c", counted)) > 100
    assert "etc/pip.conf" not in members


def test_scanners_find_the_packages(archive: Path, members: dict[str, tarfile.TarInfo]) -> None:
    assert "etc/os-release" in members
    with archive.open("rb") as file:
        bill = bill_of_materials(file)
    text = as_json(bill)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    described = json.loads(text)
    assert described["metadata"]["component"]["version"] == bits_auth_proxy.__version__
    urls = {each["name"]: each["purl"] for each in described["components"]}
    print(f"the bill of materials lists {len(urls)} components")
    locked = re.findall(
        r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements" / "runtime.lock").read_text("utf-8"), re.MULTILINE
    )
    assert len(locked) > 10
    assert {name: urls.get(name) for name, _ in locked} == {
        name: f"pkg:pypi/{name}@{version}" for name, version in locked
    }
    assert re.fullmatch(r"pkg:deb/debian/libssl3@\S+\?arch=\w+&distro=debian-12", urls["libssl3"])
    assert re.fullmatch(r"pkg:generic/python@3\.11\.\d+", urls["python"])


def test_what_is_said_of_it(image: str) -> None:
    described: dict[str, Any] = json.loads(podman("image", "inspect", image))[0]
    config = described["Config"]
    assert described["Healthcheck"]["Test"] == ["CMD", "bits-auth-proxy", "healthcheck"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["bits-auth-proxy"]
    assert config["Cmd"] == ["run"]
    assert config["Labels"]["org.opencontainers.image.version"] == bits_auth_proxy.__version__
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    env = dict(each.split("=", 1) for each in config["Env"])
    assert env["PYTHONSAFEPATH"] == "1"
    # Only the person who runs the image opens it to other machines.
    assert not [name for name in env if name.startswith("BITS_")]
    assert len(described["RootFS"]["Layers"]) <= 2


def test_the_build_sees_only_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_bytes((ROOT / ".dockerignore").read_bytes())
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n", "utf-8")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wanted = [name for name in tracked.split() if name.startswith("proxy/")]
    wanted += ["LICENSE", "README.md", "tools/image/rootfs.py", "pyproject.toml"]
    wanted += ["requirements/build.lock", "requirements/runtime.lock"]
    secret = [
        ".env",
        ".git/config",
        "bits.pem",
        "client_secret",
        "config/.env",
        "tools/image/key",
        "proxy/bits_auth_proxy/tls.key",
    ]
    secret += ["proxy/__pycache__/b.pyc", "tests/c.py"]
    for name in wanted + secret:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("content", "utf-8")
    image = podman("build", "--quiet", "--pull=never", str(tmp_path)).strip()
    try:
        archive = exported(image, tmp_path / "context.tar")
    finally:
        podman("rmi", image)
    with tarfile.open(archive) as tar:
        seen = [member.name for member in tar if member.isfile() and member.size == len("content")]
    assert sorted(seen) == sorted(wanted)
