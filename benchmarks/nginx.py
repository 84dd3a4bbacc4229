"""nginx, configured twice: as the upstream under every contender, and as a contender with a static header."""

from pathlib import Path
from typing import Final

import trustme

ANSWER: Final = '{"id":"bits:application::0f8e8a7c-4be6-4a3f-9b0e-7f6f4ad6d6a1","sessionToken":"%s"}'
ANSWER_SIZE: Final = 350
"""bytes in the body of every answer"""
ECHO_PATH: Final = "/echo"
"""answers with the Authorization that arrived"""

_MAIN: Final = """
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    default_type application/json;
    {server}
}}
"""

_UPSTREAM: Final = """
    ssl_certificate server.pem;
    ssl_certificate_key server.pem;
    ssl_session_cache shared:tls:1m;
    ssl_protocols TLSv1.2 TLSv1.3;
    server {{
        listen 127.0.0.1:{port} {tls};
        location / {{ return 200 '{answer}'; }}
        location = {echo} {{ return 200 $http_authorization; }}
        location = /v1/oauth2/token {{
            return 200 '{{"type":"Bearer","access_token":"{token}","expires_in":3600,"scope":"application"}}';
        }}
    }}
"""

_PROXY: Final = """
    proxy_ssl_trusted_certificate {ca_file};
    proxy_ssl_verify on;
    proxy_ssl_name localhost;
    upstream api {{
        server {authority};
        keepalive 100;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {scheme}://api;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Authorization "Bearer {token}";
        }}
    }}
"""


def make_certificate(directory: Path) -> Path:
    """Write a throwaway certificate for loopback as `server.pem`, and return its authority's file."""
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(
        directory / "server.pem"
    )
    ca_file = directory / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    return ca_file


def upstream(directory: Path, *, port: int, scheme: str, token: str) -> list[str]:
    """Return the command of the API's stand-in: one JSON answer, a token endpoint, an echo."""
    answer = ANSWER % ("x" * (ANSWER_SIZE - len(ANSWER % "")))
    tls = "ssl" if scheme == "https" else ""
    return _command(
        directory, _UPSTREAM.format(port=port, tls=tls, answer=answer, echo=ECHO_PATH, token=token)
    )


def static_header_proxy(
    directory: Path,
    *,
    port: int,
    scheme: str,
    authority: str,
    ca_file: Path,
    token: str,
) -> list[str]:
    """Return the command of a reverse proxy that sets a constant Authorization header."""
    server = _PROXY.format(port=port, scheme=scheme, authority=authority, ca_file=ca_file, token=token)
    return _command(directory, server)


def _command(directory: Path, server: str) -> list[str]:
    (directory / "nginx.conf").write_text(_MAIN.format(server=server))
    return ["nginx", "-p", str(directory), "-e", "stderr", "-c", "nginx.conf"]
