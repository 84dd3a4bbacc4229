"""Make all that a release consists of, check it, and publish nothing: `make release`.

What is released is what is committed. `dist/` then holds the source distribution, the wheel, the bill of
materials of the wheel with its locked dependencies (CycloneDX), and their SHA-256 sums.
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
"""The tests that are run against the installed wheel."""


class ReleaseError(Exception):
    """This can't be released; the text says why."""


def main() -> int:
    """Make and check a release; return the exit code."""
    try:
        with tempfile.TemporaryDirectory(prefix="release-") as directory:
            _release(Path(directory))
    except ReleaseError as error:
        print(f"not fit for release: {error}", file=sys.stderr)
        return 1
    return 0


def _release(scratch: Path) -> None:
    if output("git", "status", "--porcelain"):
        print("note   there are changes that are not committed, and so not in the release")
    tree, epoch = scratch / "tree", int(output("git", "log", "-1", "--format=%ct"))
    committed = scratch / "committed.tar"
    output("git", "archive", f"--output={committed}", "HEAD")
    unpack(committed, tree)
    _check_changelog((tree / "CHANGELOG.md").read_text("utf-8"))

    shutil.rmtree(OUT, ignore_errors=True)
    built = build(tree, OUT, epoch=epoch)
    again = build_again(built.sdist, scratch / "again", epoch=epoch)
    if digests(*again) != digests(*built):
        raise ReleaseError("built again from the source distribution, the files are others")
    print(f"ok     built twice, the same bytes: {built.sdist.name}, {built.wheel.name}")
    _check_wheel(built)

    environment = scratch / "environment"
    python = _install(built, environment)
    bill = OUT / f"{built.wheel.name}.cdx.json"
    _write_bill(python, tree / "pyproject.toml", bill, epoch)
    _run_smoke_tests(built, python, scratch / "tests")

    sums = digests(*built, bill)
    (OUT / "SHA256SUMS").write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)), "utf-8")
    print(f"ok     {len(sums)} files and their sums are in {OUT.name}/; nothing was published")


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
        raise ReleaseError(f"the wheel brings {', '.join(sorted(owned))}")
    print(f"ok     the wheel's metadata keeps to the standard; it brings {' and '.join(sorted(owned))} alone")


def _install(built: Built, environment: Path) -> Path:
    """Install the locked dependencies and the wheel, and nothing else; return the environment's Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    install(python, "--require-hashes", "--requirement=requirements.lock")
    install(python, str(built.wheel))
    said = output(str(environment / "bin" / "bits-auth-proxy"), "--version")
    if said != f"bits-auth-proxy {bits_auth_proxy.__version__}":
        raise ReleaseError(f"the installed command says {said!r}")
    print("ok     installed with the locked dependencies alone, the command starts")
    return python


def _write_bill(python: Path, project: Path, bill: Path, epoch: int) -> None:
    """Write what that environment holds, with the licences and who needs whom."""
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
    # The project's description, which is all that the command knows of us, leaves the version to the code.
    content["metadata"]["component"]["version"] = bits_auth_proxy.__version__
    bill.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    print(f"ok     bill of materials: {len(content['components'])} components")


def _run_smoke_tests(built: Built, python: Path, directory: Path) -> None:
    """Run the source distribution's own tests where there is no source, against what is installed."""
    unpack(built.sdist, directory)
    (tree,) = directory.iterdir()
    for name in TOP_LEVEL:
        shutil.rmtree(tree / name)
    install(python, "--require-hashes", "--requirement=requirements-dev.lock")
    subprocess.run([python, "-m", "pytest", "--quiet", *SMOKE], cwd=tree, check=True)
    print("ok     the installed wheel passes the smoke tests")


def install(python: Path, *what: str) -> None:
    """Install into another environment, without dependencies that nobody named."""
    uv = Path(sys.executable).with_name("uv")
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--no-deps", f"--python={python}", *what], cwd=ROOT, check=True
    )


def output(*command: str) -> str:
    """Return what a command prints."""
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
