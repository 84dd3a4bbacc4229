"""Lay out the root file system of the image: a Python environment, what it loads, and nothing else.

    rootfs.py ENVIRONMENT ROOT

Runs in the build stage, as root, with the base image's Python. Copies into ROOT the virtual environment,
the interpreter and its standard library, the shared libraries that these load, and what name lookups and
TLS read. The Debian packages those files are of are recorded as scanners look for them; the authorities
to trust are not copied, since a build may have replaced them by its own.
"""

import compileall
import py_compile
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path

NOT_AT_RUN_TIME = shutil.ignore_patterns(
    # Tests, an editor, installers and what they bundle.
    "test", "tests", "_test*", "_ctypes_test*", "idlelib", "tkinter", "_tkinter*", "turtle.py", "turtledemo",
    "ensurepip", "lib2to3", "distutils", "pydoc_data", "site-packages", "dist-packages", "config-*",
    "sitecustomize.py", "activate*", "Activate*",
    # What extension modules were made of, and what is made anew here.
    "*.a", "*.c", "*.h", "*.pxd", "*.pxi", "*.pyx", "*.pyi", "__pycache__",
)  # fmt: skip
ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/:/sbin/nologin\nbits:x:65532:65532:bits-auth-proxy:/:/sbin/nologin\n",
    "etc/group": "root:x:0:\nbits:x:65532:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
CONFIGURATION = ("/etc/os-release", "/etc/ld.so.cache")
PACKAGES_BY_NAME = ("base-files", "ca-certificates", "tzdata")


class RootFs:
    """The tree under `root`, which is filled with files of this system at their own paths."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.copied: set[Path] = set()

    def place(self, path: Path) -> Path:
        """Return where `path` belongs in the tree; its directory is made."""
        target = self._root / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def write(self, path: str, text: str) -> None:
        """Make a file of its own."""
        self.place(Path("/", path)).write_text(text, "utf-8")

    def link(self, path: Path) -> None:
        """Copy a symbolic link as such."""
        target = self.place(path)
        if not target.is_symlink():
            target.symlink_to(path.readlink())

    def file(self, path: Path) -> None:
        """Copy a file; where `path` is a link, each link on the way to it too."""
        path = path.parent.resolve() / path.name
        while path.is_symlink():
            self.link(path)
            path = path.parent / path.readlink()
            path = path.parent.resolve() / path.name
        if path not in self.copied:
            shutil.copy2(path, self.place(path))
            self.copied.add(path)

    def directory(self, path: Path, *, keep: AbstractSet[str] = frozenset()) -> None:
        """Copy a tree but for what no program needs at run time, unless its name is to `keep`."""

        def ignored(directory: str, names: list[str]) -> set[str]:
            return NOT_AT_RUN_TIME(directory, names) - keep

        target = self.place(path)
        shutil.copytree(path, target, symlinks=True, ignore=ignored, dirs_exist_ok=True)
        self.copied.update(path / each.relative_to(target) for each in target.rglob("*") if each.is_file())


def collect(environment: Path, tree: RootFs) -> None:
    """Copy all that the image runs."""
    for directory in map(Path, ("/bin", "/lib", "/lib64", "/sbin")):
        if directory.is_symlink():
            tree.link(directory)
    for name, text in ACCOUNTS.items():
        tree.write(name, text)
    for path in filter(Path.exists, map(Path, CONFIGURATION)):
        tree.file(path)
    # Where OpenSSL looks for the authorities, and beside it for its configuration.
    authorities = Path(ssl.get_default_verify_paths().openssl_cafile)
    tree.place(authorities).symlink_to("/etc/ssl/certs/ca-certificates.crt")
    if (configuration := authorities.with_name("openssl.cnf")).exists():
        tree.file(configuration)
    tree.place(Path("/tmp")).mkdir(mode=0o1777)

    for library in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}:
        tree.directory(Path(library))
    tree.directory(environment, keep={"site-packages"})
    interpreter = environment / "bin" / "python"
    tree.file(interpreter)
    extensions = [path for path in tree.copied if ".so" in path.suffixes]
    for path in shared_libraries([interpreter.resolve(), *extensions]):
        tree.file(path)
    for package in debian_packages(tree.copied):
        record(tree, package)


def shared_libraries(binaries: Iterable[Path]) -> set[Path]:
    """Return what the dynamic linker loads for `binaries`; what the base lacks is not looked for."""
    listings = (output("ldd", str(binary)) for binary in binaries)
    return {Path(name) for listing in listings for name in re.findall(r"(/\S+) \(0x", listing)}


def debian_packages(files: Iterable[Path]) -> list[str]:
    """Return the Debian packages that `files` are of."""
    names = [str(path) for path in files]
    # Before /lib became a link to /usr/lib, packages named their files by the shorter path.
    names += [name.removeprefix("/usr") for name in names if name.startswith("/usr/lib")]
    owners = re.findall(r"^([a-z0-9.+-]+)[:,]", output("dpkg-query", "--search", *names), re.MULTILINE)
    return sorted({*owners, *PACKAGES_BY_NAME})


def record(tree: RootFs, package: str) -> None:
    """Record a package where scanners look in an image without a package manager; keep its licence."""
    if status := output("dpkg-query", "--status", package):
        tree.write(f"var/lib/dpkg/status.d/{package}", status)
    licence = Path("/usr/share/doc", package, "copyright")
    if licence.exists():
        tree.file(licence)


def output(*command: str) -> str:
    """Return what a command prints, which may fail: `dpkg-query` does for each file of no package."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def main(environment: Path, root: Path) -> None:
    """Fill `root`, and compile all of it."""
    collect(environment, RootFs(root))
    if not compileall.compile_dir(
        root,
        maxlevels=20,
        quiet=1,
        stripdir=str(root),
        prependdir="/",
        workers=0,
        # Nothing in the image changes: neither the date of a source nor its text is looked at again.
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    ):
        sys.exit("not everything compiles")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
