"""What is derived from the limit of open files."""

import re
import resource

import pytest

from bits_auth_proxy.errors import OperatorError
from bits_auth_proxy.process import client_limit, raise_descriptor_limit
from tests.support.bench import set_up


def test_clients_get_what_the_other_connections_leave() -> None:
    assert client_limit(wanted=1000, descriptors=1_000_000, others=164) == 1000
    assert client_limit(wanted=1000, descriptors=1024, others=164) == 760


def test_a_limit_of_open_files_that_leaves_no_room_is_an_error_that_names_what_would() -> None:
    with pytest.raises(OperatorError, match="RLIMIT_NOFILE") as caught:
        client_limit(wanted=1000, descriptors=256, others=164)
    (needed,) = map(int, re.findall("to ([0-9]+) at", str(caught.value)))
    assert client_limit(wanted=1000, descriptors=needed, others=164) == 1


def test_the_soft_limit_is_raised() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        descriptors = raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (descriptors, hard)
        assert descriptors == min(hard, 2**20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_the_metric_tells_the_limit_that_holds() -> None:
    descriptors = raise_descriptor_limit()
    async with set_up(BITS_LIMITS__MAX_CONNECTIONS=str(2 * descriptors)) as bench:
        (line,) = re.findall(r"^bits_proxy_client_connections_limit (.*)$", bench.metrics(), re.MULTILINE)
        assert float(line) == descriptors - 100 - 64 - 100
        assert bench.sidecar._clients.limit._free == float(line)
