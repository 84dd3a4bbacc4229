"""Lay out the root file system of the image: only a Python environment and what it loads.

    rootfs.py ENVIRONMENT ROOT

It runs in the build stage, as root, with the base image's Python. It copies into ROOT the virtual
environment, the interpreter and its standard library, the shared libraries that these load, and the files
that name lookup and TLS read. It records the Debian packages of those files where scanners look for them. It
does not copy the trusted authorities, because the builder may have mounted its own over them.
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
    # Tests, an editor, and installers with what they bundle.
    "test", "tests", "_test*", "_ctypes_test*", "idlelib", "tkinter", "_tkinter*", "turtle.py", "turtledemo",
    "ensurepip", "lib2to3", "distutils", "pydoc_data", "site-packages", "dist-packages", "config-*",
    "sitecustomize.py", "activate*", "Activate*",
    # The sources of extension modules, and bytecode, which is compiled again below.
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
    """The tree under `root`. Files of this system are copied to the same paths in it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.copied: set[Path] = set()

    def place(self, path: Path) -> Path:
        """Return the place of `path` in the tree; create its directory."""
        target = self._root / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def write(self, path: str, text: str) -> None:
        """Write a file that this system does not have."""
        self.place(Path("/", path)).write_text(text, "utf-8")

    def link(self, path: Path) -> None:
        """Copy a symbolic link as a link."""
        target = self.place(path)
        if not target.is_symlink():
            target.symlink_to(path.readlink())

    def file(self, path: Path) -> None:
        """Copy a file. If `path` is a link, also copy every link on the way to the file."""
        path = path.parent.resolve() / path.name
        while path.is_symlink():
            self.link(path)
            path = path.parent / path.readlink()
            path = path.parent.resolve() / path.name
        if path not in self.copied:
            shutil.copy2(path, self.place(path))
            self.copied.add(path)

    def directory(self, path: Path, *, keep: AbstractSet[str] = frozenset()) -> None:
        """Copy a directory without the names that no program needs at run time, except those in `keep`."""

        def ignored(directory: str, names: list[str]) -> set[str]:
            return NOT_AT_RUN_TIME(directory, names) - keep

        target = self.place(path)
        shutil.copytree(path, target, symlinks=True, ignore=ignored, dirs_exist_ok=True)
        self.copied.update(path / each.relative_to(target) for each in target.rglob("*") if each.is_file())


def collect(environment: Path, tree: RootFs) -> None:
    """Copy all that the image needs to run."""
    for directory in map(Path, ("/bin", "/lib", "/lib64", "/sbin")):
        if directory.is_symlink():
            tree.link(directory)
    for name, text in ACCOUNTS.items():
        tree.write(name, text)
    for path in filter(Path.exists, map(Path, CONFIGURATION)):
        tree.file(path)
    # OpenSSL looks for the authorities here, and for its configuration in the same directory.
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
    """Return the libraries that the dynamic linker loads for `binaries`, as far as the base has them."""
    listings = (output("ldd", str(binary)) for binary in binaries)
    return {Path(name) for listing in listings for name in re.findall(r"(/\S+) \(0x", listing)}


def debian_packages(files: Iterable[Path]) -> list[str]:
    """Return the Debian packages that contain `files`."""
    names = [str(path) for path in files]
    # Packages from before /lib became a link to /usr/lib list their files by the shorter path.
    names += [name.removeprefix("/usr") for name in names if name.startswith("/usr/lib")]
    owners = re.findall(r"^([a-z0-9.+-]+)[:,]", output("dpkg-query", "--search", *names), re.MULTILINE)
    return sorted({*owners, *PACKAGES_BY_NAME})


def record(tree: RootFs, package: str) -> None:
    """Record a package where scanners look if there is no package manager; copy its licence."""
    if status := output("dpkg-query", "--status", package):
        tree.write(f"var/lib/dpkg/status.d/{package}", status)
    licence = Path("/usr/share/doc", package, "copyright")
    if licence.exists():
        tree.file(licence)


def output(*command: str) -> str:
    """Return what a command prints. It may fail, as `dpkg-query` does for a file of no package."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def main(environment: Path, root: Path) -> None:
    """Fill `root` and compile all modules in it."""
    collect(environment, RootFs(root))
    if not compileall.compile_dir(
        root,
        maxlevels=20,
        quiet=1,
        stripdir=str(root),
        prependdir="/",
        workers=0,
        # The image never changes, so Python does not need to compare the sources with their bytecode.
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    ):
        sys.exit("some modules do not compile")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
