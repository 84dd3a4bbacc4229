"""What the tests of the charts share: the image, built once."""

import pytest

from tests.system.containers.podman import build


@pytest.fixture(scope="session")
def image() -> str:
    return build()
