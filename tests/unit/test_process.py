"""What is derived from the limit of open files."""

import json
import re
import resource
from typing import Any

import pytest

from bits_auth_proxy.errors import OperatorError
from bits_auth_proxy.process import client_limit, raise_descriptor_limit
from tests.support.bench import Bench, set_up
from tests.support.commands import command


def events(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(line) for line in bench.log.getvalue().splitlines()]


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
        (event,) = [each for each in events(bench) if each["event"] == "client_limit_lowered"]
    assert event["level"] == "warning"
    assert (event["limit"], event["wanted"]) == (int(float(line)), 2 * descriptors)
    assert event["descriptors"] == descriptors


async def test_a_limit_that_was_not_lowered_is_no_event() -> None:
    async with set_up(BITS_LIMITS__MAX_CONNECTIONS="10") as bench:
        assert "client_limit_lowered" not in bench.log.getvalue()


async def test_the_demo_leaves_descriptors_for_its_emulator() -> None:
    env = {"BITS_LISTEN": "127.0.0.1:0", "BITS_ADMIN_LISTEN": "127.0.0.1:0", "BITS_LOG_FORMAT": "json"}
    limited = ("sh", "-c", 'ulimit -n 1024; exec "$@"', "sh")
    async with command("demo", env={**env, "BITS_EMULATOR__LISTEN": "127.0.0.1:0"}, prefix=limited) as demo:
        await demo.until(lambda: '"client_limit_lowered"' in demo.stderr, "client_limit_lowered")
        (event,) = [json.loads(line) for line in demo.stderr.splitlines() if '"client_limit_lowered"' in line]
    assert event["limit"] == 1024 - 100 - 64 - 512 - 100
