"""Our distributions, built once for all tests of this folder."""

import pytest

from tests.support.commands import ROOT
from tools.release.distributions import Built, build

EPOCH = 1_750_000_000


@pytest.fixture(scope="session")
def epoch() -> int:
    """The date of the build, in seconds."""
    return EPOCH


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, epoch: int) -> Built:
    return build(ROOT, tmp_path_factory.mktemp("dist"), epoch=epoch)
