"""The wheel and the source distribution: what they contain, and that everybody builds the same ones."""

import re
import zipfile
from configparser import ConfigParser
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import bits_auth_proxy
from bits_auth_proxy.testing import plugin
from tests.support.commands import ROOT
from tools.release.distributions import (
    TOP_LEVEL,
    Built,
    build_again,
    digests,
    files_of_sdist,
    files_of_wheel,
    metadata_of,
    tree_files,
)

SDIST_FILES = {
    *("pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile"),
    *("Dockerfile", ".dockerignore", "compose.bits.yaml", "compose.yaml", ".yamllint"),
}
SDIST_FOLDERS = {
    *("benchmarks", "config", "docs", "examples", "helm", "proxy", "requirements", "tests", "tools"),
    *(".ci", ".github"),
}
SDIST_ADDED = {"PKG-INFO", ".gitignore"}
"""What the build backend adds: the metadata, and which files of the tree it leaves out."""


def test_the_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    files = {name for name in files_of_wheel(built.wheel) if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in files} == TOP_LEVEL == {"bits_auth_proxy"}
    assert files == set(tree_files(ROOT / "proxy", *TOP_LEVEL))
    assert "bits_auth_proxy/py.typed" in files


def test_the_metadata_keeps_to_the_standard(built: Built) -> None:
    metadata = metadata_of(built.wheel)
    assert metadata.name == "bits-auth-proxy"
    assert str(metadata.version) == bits_auth_proxy.__version__
    assert metadata.license_expression == "Apache-2.0"
    assert metadata.license_files == ["LICENSE"]
    assert metadata.description_content_type == "text/markdown"
    assert metadata.description == (ROOT / "README.md").read_text("utf-8")


def test_the_entry_points_are_the_command_and_the_pytest_plugin(built: Built) -> None:
    parser = ConfigParser()
    with zipfile.ZipFile(built.wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        parser.read_string(archive.read(name).decode())
    loaded = {
        (group, name): EntryPoint(name, value, group).load()
        for group in parser.sections()
        for name, value in parser[group].items()
    }
    command = loaded.pop(("console_scripts", "bits-auth-proxy"))
    assert loaded == {("pytest11", "bits_auth_proxy"): plugin}
    assert callable(command)
    assert command.__module__.partition(".")[0] == "bits_auth_proxy"


def test_the_source_distribution_holds_what_is_needed_to_build_and_test(built: Built) -> None:
    files = files_of_sdist(built.sdist)
    # Of the others, git ignores what tests and builds leave there.
    assert set(tree_files(ROOT, "config", "docs", "examples", "proxy", "tools")) <= files
    assert {name for name in files if "/" not in name} == SDIST_FILES | SDIST_ADDED
    assert {name.partition("/")[0] for name in files if "/" in name} == SDIST_FOLDERS
    locks = {path.relative_to(ROOT).as_posix() for path in (ROOT / "requirements").glob("*.lock")}
    assert "requirements/runtime.lock" in locks <= files
    assert not [name for name in files if "__pycache__" in name or "node_modules" in name]


def test_another_user_on_another_day_builds_the_same_bytes(built: Built, epoch: int, tmp_path: Path) -> None:
    again = build_again(built.sdist, tmp_path, epoch=epoch)
    assert digests(*again) == digests(*built)


def test_nobody_else_owns_our_names() -> None:
    """No distribution of the development environment does; it holds all that is locked for running."""
    locked = re.findall(
        r"^([a-z0-9-]+)==", (ROOT / "requirements" / "runtime.lock").read_text("utf-8"), re.MULTILINE
    )
    installed = {each.name.lower().replace("_", "-"): each for each in distributions()}
    assert set(locked) <= set(installed)
    del installed["bits-auth-proxy"]
    names = {
        name: {file.parts[0].removesuffix(".py") for file in each.files or ()}
        for name, each in installed.items()
    }
    assert "aiohttp" in names["aiohttp"]
    assert [name for name, owned in names.items() if owned & TOP_LEVEL] == []


def test_the_changelog_has_a_section_for_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"\n## [{bits_auth_proxy.__version__}] - " in changelog
