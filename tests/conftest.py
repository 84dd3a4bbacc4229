"""Options of the test run, and the fixture that many tests share."""

from collections.abc import AsyncIterator, Generator

import hypothesis
import pytest

from bits_auth_proxy.forward import gateway
from tests.support import evidence
from tests.support.bench import Bench, set_up

# A busy machine is no fault of the code.
hypothesis.settings.register_profile("tests", deadline=None, print_blob=True)
hypothesis.settings.load_profile("tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--steady-seconds",
        default="5",
        help="how long the clients keep calling while short tokens come and go",
    )
    parser.addoption(
        "--regenerate",
        action="store_true",
        help="write the golden manifests of the charts; then review the diff",
    )


def pytest_runtest_logstart() -> None:
    evidence.forget()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections.extend(evidence.told())
    return report


@pytest.fixture
def regenerate(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--regenerate"))


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines are on a clock that the test moves: have it looked at often."""
    monkeypatch.setattr(gateway, "TICK", 0.01)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with set_up() as made:
        yield made
