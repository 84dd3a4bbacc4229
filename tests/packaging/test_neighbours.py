"""Our wheel beside the packages that own the names `proxy` and `config`: proxy.py and config from PyPI."""

import ast
from itertools import combinations
from pathlib import Path

import pytest

from tests.packaging.calls import DEMO, address_of, create_application
from tests.packaging.environments import Environment
from tests.support.waiting import seen
from tools.release.distributions import Built

OURS, NEIGHBOURS = "bits-auth-proxy", ("config", "proxy.py")


@pytest.fixture(params=["ours first", "ours last"])
def shared(request: pytest.FixtureRequest, built: Built, tmp_path: Path) -> Environment:
    """An environment with all three."""
    environment = Environment(tmp_path / "environment")
    order: list[tuple[str | Path, ...]] = [(built.wheel,), NEIGHBOURS]
    for each in order if request.param == "ours first" else reversed(order):
        environment.install(*each)
    return environment


async def test_all_three_work_in_one_environment(shared: Environment, tmp_path: Path) -> None:
    assert_whole(shared, tmp_path, OURS, *NEIGHBOURS)
    async with shared.running(shared.command(OURS), "demo", cwd=tmp_path, env=DEMO) as demo:
        url = await address_of(demo)
        assert create_application(url)["id"].startswith("bits:application::")
        # config reads the address of our proxy from a file; proxy.py forwards a call to it.
        assert read_with_config(shared, tmp_path, f"{{api: '{url}'}}") == url
        file = tmp_path / "port"
        forward = (shared.command("proxy"), "--hostname=127.0.0.1", "--port=0", f"--port-file={file}")
        async with shared.running(*forward, "--num-workers=1", "--num-acceptors=1", cwd=tmp_path):
            port = await seen(lambda: file.exists() and file.read_text("utf-8").strip())
            answer = create_application(url, through=f"http://127.0.0.1:{port}")
            assert answer["id"].startswith("bits:application::")

    shared.uninstall("proxy.py")
    assert_whole(shared, tmp_path, OURS, "config")
    async with shared.running(shared.command(OURS), "demo", cwd=tmp_path, env=DEMO) as demo:
        assert create_application(await address_of(demo))["id"].startswith("bits:application::")


def assert_whole(environment: Environment, cwd: Path, *names: str) -> None:
    """Assert that every file of these distributions is there, and that no file belongs to two of them."""
    program = (
        "from importlib.metadata import distribution\n"
        f"files = {{name: distribution(name).files for name in {names!r}}}\n"
        "missing = [str(f) for each in files.values() for f in each if not f.locate().exists()]\n"
        "owned = {name: [str(f) for f in each] for name, each in files.items()}\n"
        "print((missing, owned))\n"
    )
    missing, owned = ast.literal_eval(environment.evaluate(program, cwd=cwd))
    assert missing == []
    for one, other in combinations(owned, 2):
        assert set(owned[one]) & set(owned[other]) == set()


def read_with_config(environment: Environment, cwd: Path, text: str) -> str:
    file = cwd / "app.cfg"
    file.write_text(text, "utf-8")
    program = f"import config; print(config.Config({str(file)!r})['api'])"
    return environment.evaluate(program, cwd=cwd)
