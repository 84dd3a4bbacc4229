"""The pytest plugin (entry point `pytest11`), which imports almost nothing until a test uses its fixture."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from bits_auth_proxy.testing.sandbox import Sandbox, SandboxHost


@pytest.fixture
def bits_sandbox(
    _bits_sandbox_host: "SandboxHost", bits_sandbox_settings: dict[str, str]
) -> Iterator["Sandbox"]:
    """An emulator of the Bits API with a proxy in front of it, new for each test. See `Sandbox`."""
    with _bits_sandbox_host.serve(bits_sandbox_settings) as sandbox:
        yield sandbox


@pytest.fixture
def bits_sandbox_settings() -> dict[str, str]:
    """Override this to set BITS_… variables of the emulator and the proxy, except their addresses."""
    return {}


@pytest.fixture(scope="session")
def _bits_sandbox_host() -> Iterator["SandboxHost"]:
    from bits_auth_proxy.testing.sandbox import SandboxHost  # noqa: PLC0415 - only if a test uses it

    with SandboxHost() as host:
        yield host
