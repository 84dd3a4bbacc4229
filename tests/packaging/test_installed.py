"""The wheel with its dependencies and nothing else, as an operator installs it."""

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from bits_auth_proxy import __version__
from tests.packaging.calls import DEMO, address_of, create_application
from tests.packaging.environments import Environment
from tools.release.distributions import TOP_LEVEL, Built

# Folders of the source tree, and the names that earlier versions of the wheel installed.
OTHERS = (
    "benchmarks",
    "config",
    "docs",
    "examples",
    "helm",
    "image",
    "proxy",
    "release",
    "requirements",
    "tests",
    "tools",
)


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("installed"))
    environment.install(built.wheel)
    return environment


def test_only_the_package_can_be_imported(installed: Environment, tmp_path: Path) -> None:
    program = (
        "from importlib.util import find_spec\n"
        f"names = {sorted(TOP_LEVEL.union(OTHERS))!r}\n"
        "print([name for name in names if find_spec(name) is not None])\n"
    )
    assert ast.literal_eval(installed.evaluate(program, cwd=tmp_path)) == sorted(TOP_LEVEL)


def test_the_distribution_owns_the_package_and_the_command(installed: Environment, tmp_path: Path) -> None:
    program = (
        "from importlib.metadata import distribution\n"
        "files = distribution('bits-auth-proxy').files\n"
        "names = {str(file) if file.parts[0] == '..' else file.parts[0] for file in files}\n"
        "print(sorted(name for name in names if not name.endswith('.dist-info')))\n"
    )
    owned = ast.literal_eval(installed.evaluate(program, cwd=tmp_path))
    assert owned == ["../../../bin/bits-auth-proxy", *sorted(TOP_LEVEL)]


def command(installed: Environment) -> tuple[str, ...]:
    return (installed.command("bits-auth-proxy"),)


def module(installed: Environment) -> tuple[str, ...]:
    return (str(installed.python), "-P", "-m", "bits_auth_proxy")


@pytest.mark.parametrize("way", [command, module])
async def test_it_runs(
    installed: Environment, tmp_path: Path, way: Callable[[Environment], tuple[str, ...]]
) -> None:
    start = way(installed)
    said = installed.run(*start, "--version", cwd=tmp_path)
    assert (said.returncode, said.stdout) == (0, f"bits-auth-proxy {__version__}\n")
    async with installed.running(*start, "demo", cwd=tmp_path, env=DEMO) as demo:
        assert create_application(await address_of(demo))["id"].startswith("bits:application::")
    assert demo.process.returncode == 0
