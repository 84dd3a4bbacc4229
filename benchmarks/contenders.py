"""The contenders: how each is started in front of the same upstream."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import caddy, envoy, nginx

OURS: Final = "bits-auth-proxy"
YARDSTICK: Final = "aiohttp"
LOGGING: Final = "bits-auth-proxy, access log"
DIRECT: Final = "direct"
"""no proxy at all: what the load and the upstream do by themselves"""
POOL_SIZE: Final = 100
"""connections to the upstream that every proxy may keep"""

ROOT: Final = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a contender is given: where to listen, where to forward, what to inject, a folder of its own."""

    directory: Path
    port: int
    scheme: str
    authority: str
    ca_file: Path
    token: str

    @property
    def upstream(self) -> str:
        """The upstream's base URL."""
        return f"{self.scheme}://{self.authority}"


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A contender's command and environment."""

    command: list[str]
    environment: Mapping[str, str]


def bits_auth_proxy(setting: Setting) -> Launch:
    """This proxy, as its users run it: the token comes from the upstream's token endpoint."""
    return Launch(
        command=[sys.executable, "-m", "bits_auth_proxy", "run"],
        environment=_environment()
        | {
            "BITS_LISTEN": f"127.0.0.1:{setting.port}",
            "BITS_ADMIN_LISTEN": "127.0.0.1:0",
            "BITS_API_URL": setting.upstream,
            "BITS_CLIENT_ID": "benchmark",
            "BITS_CLIENT_SECRET": "benchmark-secret",
            "SSL_CERT_FILE": str(setting.ca_file),
        },
    )


def bits_auth_proxy_logging(setting: Setting) -> Launch:
    """The same, with a line of JSON for every request."""
    launch = bits_auth_proxy(setting)
    logging = {"BITS_ACCESS_LOG": "all", "BITS_LOG_FORMAT": "json"}
    return Launch(command=launch.command, environment={**launch.environment, **logging})


def aiohttp_proxy(setting: Setting) -> Launch:
    """The straightforward proxy of `benchmarks/aiohttp_proxy.py`."""
    command = [sys.executable, "-m", "benchmarks.aiohttp_proxy"]
    command += ["--listen-port", str(setting.port), "--upstream", setting.upstream, "--token", setting.token]
    return Launch(command=[*command, "--ca-file", str(setting.ca_file)], environment=_environment())


def nginx_proxy(setting: Setting) -> Launch:
    """A constant header set by nginx: a floor, for it manages no token."""
    command = nginx.static_header_proxy(
        setting.directory,
        port=setting.port,
        scheme=setting.scheme,
        authority=setting.authority,
        ca_file=setting.ca_file,
        token=setting.token,
    )
    return Launch(command=command, environment=_environment())


def envoy_proxy(setting: Setting) -> Launch:
    """Envoy's credential injector, which keeps a token as this proxy does."""
    command = envoy.credential_injector(
        setting.directory,
        port=setting.port,
        scheme=setting.scheme,
        authority=setting.authority,
        ca_file=setting.ca_file,
        pool_size=POOL_SIZE,
    )
    return Launch(command=command, environment=_environment())


def caddy_proxy(setting: Setting) -> Launch:
    """A constant header set by Caddy, on one processor."""
    command = caddy.static_header_proxy(
        setting.directory,
        port=setting.port,
        scheme=setting.scheme,
        authority=setting.authority,
        ca_file=setting.ca_file,
        token=setting.token,
        pool_size=POOL_SIZE,
    )
    home = str(setting.directory)
    own = {"GOMAXPROCS": "1", "HOME": home, "XDG_CONFIG_HOME": home, "XDG_DATA_HOME": home}
    return Launch(command=command, environment=_environment() | own)


CONTENDERS: Final[Mapping[str, Callable[[Setting], Launch] | None]] = {
    OURS: bits_auth_proxy,
    LOGGING: bits_auth_proxy_logging,
    YARDSTICK: aiohttp_proxy,
    "nginx": nginx_proxy,
    "Envoy": envoy_proxy,
    "Caddy": caddy_proxy,
    DIRECT: None,
}


def _environment() -> dict[str, str]:
    """Return this process's environment without settings of the proxy, and with this tree importable."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BITS_")}
    return inherited | {"PYTHONPATH": str(ROOT)}
