"""The fixture that the tests of the image share: the image, built once."""

import pytest

from tools.image.podman import build


@pytest.fixture(scope="session")
def image() -> str:
    return build()
