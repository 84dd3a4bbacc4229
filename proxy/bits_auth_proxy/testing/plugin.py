"""The pytest plugin (entry point `pytest11`). Loads next to nothing until a test asks for its fixture."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from bits_auth_proxy.testing.sandbox import Sandbox, SandboxHost


@pytest.fixture
def bits_sandbox(
    _bits_sandbox_host: "SandboxHost", bits_sandbox_settings: dict[str, str]
) -> Iterator["Sandbox"]:
    """An emulator of the Bits API and a proxy before it, fresh for each test. See `Sandbox`."""
    with _bits_sandbox_host.serve(bits_sandbox_settings) as sandbox:
        yield sandbox


@pytest.fixture
def bits_sandbox_settings() -> dict[str, str]:
    """Settings of both as environment variables (BITS_…), to be overridden; where they listen is fixed."""
    return {}


@pytest.fixture(scope="session")
def _bits_sandbox_host() -> Iterator["SandboxHost"]:
    from bits_auth_proxy.testing.sandbox import SandboxHost  # noqa: PLC0415 - only when it is used

    with SandboxHost() as host:
        yield host
