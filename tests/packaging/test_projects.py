"""The fixture `bits_sandbox` in a project with a layout as in Django: packages `config`, `proxy` and `tests`.

pytest runs in an environment that is made for the project. The project imports its own modules; the sandbox
never does.
"""

import inspect
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.packaging.environments import Environment
from tools.release.distributions import Built

PROJECT = {
    "config/__init__.py": "",
    "config/settings.py": """
        ROOT_URLCONF = "config.urls"
        INSTALLED_APPS = ["proxy"]
        BITS_URL = "http://localhost:8080"
    """,
    "config/urls.py": """
        from proxy import views

        urlpatterns = {"applications/": views.create}
    """,
    "proxy/__init__.py": "",
    "proxy/views.py": """
        import json
        from urllib.request import ProxyHandler, Request, build_opener

        from config import settings


        def create(request):
            call = Request(
                f"{settings.BITS_URL}/v1/applications.create",
                data=json.dumps(request).encode(),
                headers={"Content-Type": "application/json"},
            )
            with build_opener(ProxyHandler({})).open(call, timeout=60) as answer:
                return json.load(answer)
    """,
    "tests/__init__.py": "",
    "tests/test_applications.py": """
        from importlib import import_module
        from pathlib import Path

        import config
        import proxy
        from config import settings

        APPLICATION = {
            "workflowId": "bits:workflow::8abe317f-6d54-4949-8ecd-245efb4fa05d",
            "countryCode": "SE",
            "redirectUrl": "https://acme.example/done",
        }


        def test_a_view_calls_the_api(bits_sandbox, monkeypatch):
            monkeypatch.setattr(settings, "BITS_URL", bits_sandbox.url)
            view = import_module(settings.ROOT_URLCONF).urlpatterns["applications/"]
            assert view(APPLICATION)["id"].startswith("bits:application::")
            assert bits_sandbox.counters()["applications.create"] == 1


        def test_the_packages_are_those_of_the_project():
            root = Path(__file__).parents[1]
            assert Path(config.__file__).parent == root / "config"
            assert Path(proxy.__file__).parent == root / "proxy"
    """,
}
CONFTEST = {
    "conftest.py": """
        import pytest

        from config import settings


        @pytest.fixture
        def bits_sandbox_settings():
            assert settings.INSTALLED_APPS == ["proxy"]
            return {"BITS_EMULATOR__TOKEN_LIFETIME": "100"}
    """
}

# A project of one file. Beside it are modules named like those that the sandbox uses, or used in its first
# version, and that pytest does not use.
SMALL_PROJECT = {
    "test_sandbox.py": """
        from urllib.request import ProxyHandler, build_opener


        def test_a_call(bits_sandbox):
            url = f"{bits_sandbox.url}/oauth2/userinfo"
            with build_opener(ProxyHandler({})).open(url, timeout=60) as answer:
                assert answer.status == 200


        def test_another(bits_sandbox):
            assert bits_sandbox.counters()["tokens_issued"] == 1
    """
}
NAMES = ("aiohttp", "asyncio", "config", "prometheus_client", "pydantic", "secrets", "structlog")
NAMESAKES = {f"{name}.py": f"raise AssertionError('this is the {name} of the project')" for name in NAMES}


def write(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(inspect.cleandoc(text) + "\n", "utf-8")
    return root


def module(environment: Environment) -> tuple[str, ...]:
    """Return `python -m pytest`, which puts the working directory on the path."""
    return (str(environment.python), "-m", "pytest")


def command(environment: Environment) -> tuple[str, ...]:
    """Return `pytest`, which does not."""
    return (environment.command("pytest"),)


def assert_passed(ended: subprocess.CompletedProcess[str]) -> None:
    assert ended.returncode == 0, ended.stdout
    assert "2 passed" in ended.stdout


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("installed"))
    environment.install(built.wheel, "pytest")
    return environment


@pytest.fixture(params=["prepend", "importlib"])
def mode(request: pytest.FixtureRequest) -> str:
    return f"--import-mode={request.param}"


@pytest.mark.parametrize("more", [CONFTEST, {}], ids=["conftest", "no conftest"])
def test_python_m_pytest(installed: Environment, tmp_path: Path, mode: str, more: dict[str, str]) -> None:
    project = write(tmp_path, PROJECT | more)
    assert_passed(installed.run(*module(installed), mode, cwd=project))


@pytest.mark.parametrize("more", [CONFTEST, {}], ids=["conftest", "no conftest"])
def test_the_command_with_the_project_on_pythonpath(
    installed: Environment, tmp_path: Path, mode: str, more: dict[str, str]
) -> None:
    project = write(tmp_path, PROJECT | more)
    env = {"PYTHONPATH": str(project)}
    assert_passed(installed.run(*command(installed), mode, cwd=project, env=env))


def test_python_m_pytest_with_a_safe_path(installed: Environment, tmp_path: Path) -> None:
    """PYTHONSAFEPATH keeps the working directory off the path; pytest adds the folder of conftest.py."""
    project = write(tmp_path, PROJECT | CONFTEST)
    assert_passed(installed.run(*module(installed), cwd=project, env={"PYTHONSAFEPATH": "1"}))


def test_modules_of_the_project_do_not_replace_those_of_the_sandbox(
    installed: Environment, tmp_path: Path, mode: str
) -> None:
    project = write(tmp_path, SMALL_PROJECT | NAMESAKES)
    assert_passed(installed.run(*module(installed), mode, cwd=project))


def test_those_that_pytest_itself_needs_are_not_replaced_either(
    installed: Environment, tmp_path: Path
) -> None:
    """Only the command works here: it imports pytest before the project is on the path."""
    more = {"logging.py": "raise AssertionError", "json.py": "raise AssertionError"}
    project = write(tmp_path, SMALL_PROJECT | NAMESAKES | more)
    assert_passed(installed.run(*command(installed), cwd=project))


def test_variables_of_python_do_not_reach_the_sandbox(installed: Environment, tmp_path: Path) -> None:
    customized = {"sitecustomize.py": "print('This is not a line of the sandbox.')"}
    project = write(tmp_path, SMALL_PROJECT | NAMESAKES | customized)
    env = {"PYTHONPATH": str(project), "PYTHONSTARTUP": "config.py"}
    assert_passed(installed.run(*command(installed), cwd=project, env=env))


def test_an_installation_on_pythonpath_is_not_replaced_either(built: Built, tmp_path: Path) -> None:
    """Other versions in the environment do not count, nor do modules of the project."""
    environment, libraries = Environment(tmp_path / "environment"), tmp_path / "libraries"
    environment.install("pytest")
    environment.install(built.wheel, target=libraries)
    write(environment.site_packages, NAMESAKES)
    project = write(tmp_path / "project", SMALL_PROJECT | NAMESAKES)
    assert_passed(environment.run(*module(environment), cwd=project, env={"PYTHONPATH": str(libraries)}))
