"""Build and check a release of the last commit, without publishing anything: `make release`.

Afterwards `dist/` holds the source distribution, the wheel, the bill of materials of the wheel with its
locked dependencies (CycloneDX), and the SHA-256 sums of these files.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import bits_auth_proxy
from tools.release.distributions import (
    TOP_LEVEL,
    Built,
    build,
    build_again,
    digests,
    files_of_wheel,
    metadata_of,
    unpack,
)

ROOT: Final = Path(__file__).parents[2]
OUT: Final = ROOT / "dist"
SMOKE: Final = ("tests/integration/test_commands.py", "tests/integration/test_healthcheck.py")
"""The tests to run against the installed wheel."""


class ReleaseError(Exception):
    """The release is not fit to publish; the text says why."""


def main() -> int:
    """Build and check a release; return the exit code."""
    try:
        with tempfile.TemporaryDirectory(prefix="release-") as directory:
            _release(Path(directory))
    except ReleaseError as error:
        print(f"not fit for release: {error}", file=sys.stderr)
        return 1
    return 0


def _release(scratch: Path) -> None:
    if output("git", "status", "--porcelain"):
        print("note   uncommitted changes are not part of the release")
    tree, epoch = scratch / "tree", int(output("git", "log", "-1", "--format=%ct"))
    committed = scratch / "committed.tar"
    output("git", "archive", f"--output={committed}", "HEAD")
    unpack(committed, tree)
    _check_changelog((tree / "CHANGELOG.md").read_text("utf-8"))

    shutil.rmtree(OUT, ignore_errors=True)
    built = build(tree, OUT, epoch=epoch)
    again = build_again(built.sdist, scratch / "again", epoch=epoch)
    if digests(*again) != digests(*built):
        raise ReleaseError("a second build, from the source distribution, gives different files")
    print(f"ok     built twice, the same bytes: {built.sdist.name}, {built.wheel.name}")
    _check_wheel(built)

    environment = scratch / "environment"
    python = _install(built, environment)
    bill = OUT / f"{built.wheel.name}.cdx.json"
    _write_bill(python, tree / "pyproject.toml", bill, epoch)
    _run_smoke_tests(built, python, scratch / "tests")

    sums = digests(*built, bill)
    (OUT / "SHA256SUMS").write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)), "utf-8")
    print(f"ok     {OUT.name}/ holds {len(sums)} files and their sums; nothing was published")


def _check_changelog(changelog: str) -> None:
    section = re.search(rf"^## \[{re.escape(bits_auth_proxy.__version__)}\] - (.+)$", changelog, re.MULTILINE)
    if section is None:
        raise ReleaseError(f"CHANGELOG.md has no section for {bits_auth_proxy.__version__}")
    tagged = output("git", "tag", "--points-at", "HEAD", f"v{bits_auth_proxy.__version__}")
    if tagged and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", section[1]):
        raise ReleaseError(f"CHANGELOG.md gives no date for {bits_auth_proxy.__version__}, which is tagged")
    print(f"ok     version {bits_auth_proxy.__version__}, in the changelog as of: {section[1]}")


def _check_wheel(built: Built) -> None:
    metadata = metadata_of(built.wheel)
    if str(metadata.version) != bits_auth_proxy.__version__:
        raise ReleaseError(f"the wheel's version is {metadata.version}, not {bits_auth_proxy.__version__}")
    owned = {name.partition("/")[0] for name in files_of_wheel(built.wheel) if ".dist-info/" not in name}
    if owned != TOP_LEVEL:
        raise ReleaseError(f"the wheel installs {', '.join(sorted(owned))}")
    print(f"ok     the wheel's metadata follows the standard; it installs only {' and '.join(sorted(owned))}")


def _install(built: Built, environment: Path) -> Path:
    """Install only the locked dependencies and the wheel; return the environment's Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    install(python, "--require-hashes", "--requirement=requirements/runtime.lock")
    install(python, str(built.wheel))
    said = output(str(environment / "bin" / "bits-auth-proxy"), "--version")
    if said != f"bits-auth-proxy {bits_auth_proxy.__version__}":
        raise ReleaseError(f"the installed command prints {said!r}")
    print("ok     the command starts with only the locked dependencies installed")
    return python


def _write_bill(python: Path, project: Path, bill: Path, epoch: int) -> None:
    """Write the bill of materials: what the environment holds, with licences and dependencies."""
    command = [
        sys.executable,
        "-m",
        "cyclonedx_py",
        "environment",
        "--output-reproducible",
        "--spec-version=1.6",
    ]
    env = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    subprocess.run([*command, f"--pyproject={project}", f"--output-file={bill}", python], env=env, check=True)
    content = json.loads(bill.read_text("utf-8"))
    # The command reads the version from pyproject.toml, which leaves it to the code.
    content["metadata"]["component"]["version"] = bits_auth_proxy.__version__
    bill.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    print(f"ok     bill of materials: {len(content['components'])} components")


def _run_smoke_tests(built: Built, python: Path, directory: Path) -> None:
    """Run tests of the source distribution against the installed wheel, with our source removed."""
    unpack(built.sdist, directory)
    (tree,) = directory.iterdir()
    shutil.rmtree(tree / "proxy")
    install(python, "--require-hashes", "--requirement=requirements/dev.lock")
    subprocess.run([python, "-m", "pytest", "--quiet", *SMOKE], cwd=tree, check=True)
    print("ok     the installed wheel passes the smoke tests")


def install(python: Path, *what: str) -> None:
    """Install into another environment exactly what is named, without further dependencies."""
    uv = Path(sys.executable).with_name("uv")
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--no-deps", f"--python={python}", *what], cwd=ROOT, check=True
    )


def output(*command: str) -> str:
    """Return what a command prints."""
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
