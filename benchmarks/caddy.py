"""Caddy as a contender: Go's ReverseProxy with a constant header."""

from pathlib import Path
from typing import Final

_CADDYFILE: Final = """
{{
    admin off
    auto_https off
    storage file_system {directory}
    servers {{
        protocols h1
    }}
}}
http://:{port} {{
    bind 127.0.0.1
    reverse_proxy {scheme}://{authority} {{
        header_up Host {authority}
        header_up Authorization "Bearer {token}"
        transport http {{
            versions 1.1
            keepalive 1h
            keepalive_idle_conns {pool_size}
            keepalive_idle_conns_per_host {pool_size}
            {tls}
        }}
    }}
}}
"""


def static_header_proxy(
    directory: Path,
    *,
    port: int,
    scheme: str,
    authority: str,
    ca_file: Path,
    token: str,
    pool_size: int,
) -> list[str]:
    """Return the command of a Caddy that sets a constant Authorization header."""
    config = directory / "Caddyfile"
    config.write_text(
        _CADDYFILE.format(
            directory=directory,
            port=port,
            scheme=scheme,
            authority=authority,
            token=token,
            pool_size=pool_size,
            tls=f"tls_trusted_ca_certs {ca_file}" if scheme == "https" else "",
        )
    )
    return ["caddy", "run", "--config", str(config), "--adapter", "caddyfile"]
