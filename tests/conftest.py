"""Options of the test run."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--steady-seconds",
        default="8",
        help="how long the clients keep calling while short tokens come and go",
    )
