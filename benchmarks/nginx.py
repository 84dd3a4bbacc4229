"""nginx, configured twice: as the upstream under every contender, and as a contender with a static header."""

from pathlib import Path
from typing import Final

import trustme

ANSWER: Final = '{"id":"bits:application::0f8e8a7c-4be6-4a3f-9b0e-7f6f4ad6d6a1","sessionToken":"%s"}'
ANSWER_SIZE: Final = 350
"""bytes in the body of every answer"""
ECHO_PATH: Final = "/echo"
"""answers with the Authorization that arrived"""
UPLOAD_PATH: Final = "/upload"
"""takes a body before it answers"""
MIB_PATH: Final = "/mib"
GIB_PATH: Final = "/gib"
"""answer with so many zeros"""

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
    keepalive_timeout {keep_alive};
    default_type application/json;
    {server}
}}
"""

_UPSTREAM: Final = """
    ssl_certificate server.pem;
    ssl_certificate_key server.pem;
    ssl_session_cache shared:tls:1m;
    ssl_protocols TLSv1.2 TLSv1.3;
    client_max_body_size 0;
    server {{
        listen unix:{directory}/answer.sock;
        location / {{ return 200 '{answer}'; }}
    }}
    server {{
        listen 127.0.0.1:{port} {tls};
        root zeros;
        location / {{ return 200 '{answer}'; }}
        location = {upload} {{
            # An answer only when the whole body is there.
            client_body_buffer_size 2m;
            proxy_pass http://unix:{directory}/answer.sock:/;
            proxy_method GET;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
        }}
        location = /mib {{ }}
        location = /gib {{ }}
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
    client_max_body_size 0;
    proxy_request_buffering off;
    proxy_max_temp_file_size 0;
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


def upstream(directory: Path, *, port: int, scheme: str, token: str, keep_alive: str) -> list[str]:
    """Return the command of the API's stand-in: one JSON answer, a token endpoint, an echo."""
    answer = ANSWER % ("x" * (ANSWER_SIZE - len(ANSWER % "")))
    (directory / "zeros").mkdir()
    for name, size in (("mib", 2**20), ("gib", 2**30)):
        with (directory / "zeros" / name).open("wb") as file:
            file.truncate(size)
    server = _UPSTREAM.format(
        directory=directory,
        port=port,
        tls="ssl" if scheme == "https" else "",
        answer=answer,
        token=token,
        echo=ECHO_PATH,
        upload=UPLOAD_PATH,
    )
    return _command(directory, server, keep_alive)


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


def _command(directory: Path, server: str, keep_alive: str = "1h") -> list[str]:
    (directory / "nginx.conf").write_text(_MAIN.format(server=server, keep_alive=keep_alive))
    return ["nginx", "-p", str(directory), "-e", "stderr", "-c", "nginx.conf"]
