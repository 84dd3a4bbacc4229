"""The wheel and the source distribution: what is in them, and that anybody builds the same ones."""

import re
from importlib.metadata import distributions
from pathlib import Path

import pytest

import bits_auth_proxy
from tests.support.commands import ROOT
from tools.release.distributions import (
    TOP_LEVEL,
    Built,
    build,
    build_again,
    digests,
    files_of_sdist,
    files_of_wheel,
    metadata_of,
    tree_files,
)

EPOCH = 1_750_000_000


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(ROOT, tmp_path_factory.mktemp("dist"), epoch=EPOCH)


def test_the_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    files = {name for name in files_of_wheel(built.wheel) if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in files} == TOP_LEVEL
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


def test_the_source_distribution_holds_what_is_needed_to_build_and_test(built: Built) -> None:
    files = files_of_sdist(built.sdist)
    assert set(tree_files(ROOT, "config", "proxy", "docs")) <= files
    assert {"pyproject.toml", "requirements/runtime.lock", "README.md", "CHANGELOG.md", "LICENSE"} <= files
    assert {name.partition("/")[0] for name in files} == {
        *(".ci", ".dockerignore", ".github", ".gitignore", ".yamllint", "PKG-INFO", "pyproject.toml"),
        *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md"),
        *("Dockerfile", "Makefile", "compose.bits.yaml", "compose.yaml", "requirements"),
        *("benchmarks", "config", "docs", "examples", "helm", "proxy", "tests", "tools"),
    }
    assert not [name for name in files if "__pycache__" in name or "node_modules" in name]


def test_another_user_on_another_day_builds_the_same_bytes(built: Built, tmp_path: Path) -> None:
    again = build_again(built.sdist, tmp_path, epoch=EPOCH)
    assert digests(*again) == digests(*built)


def test_nobody_else_owns_our_names() -> None:
    """In an environment of all that is locked; others might well think of `config` too."""
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


def test_the_changelog_tells_of_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"\n## [{bits_auth_proxy.__version__}] - " in changelog
