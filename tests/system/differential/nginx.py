"""Debian's nginx as a reverse proxy, configured to change as little as it can."""

from typing import Final

from tests.system.differential.peers import Peer

# One process, not a daemon, so that it can be ended by its id and runs as the user of the tests.
_CONFIGURATION: Final = """\
daemon off;
master_process off;
pid nginx.pid;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path temp_body;
    proxy_temp_path temp_proxy;
    fastcgi_temp_path temp_fastcgi;
    uwsgi_temp_path temp_uwsgi;
    scgi_temp_path temp_scgi;
    client_max_body_size 0;
    large_client_header_buffers 4 16k;
    ignore_invalid_headers off;
    upstream api {{ server {authority}; keepalive 8; }}
    server {{
        listen unix:{socket};
        location / {{
            proxy_pass http://api;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_buffer_size 32k;
            proxy_buffers 4 32k;
            proxy_redirect off;
            proxy_pass_header Server;
            proxy_pass_header Date;
            proxy_set_header Host {authority};
            proxy_set_header Connection "";
            proxy_set_header Authorization "Bearer {token}";
        }}
    }}
}}
"""
NGINX: Final = Peer("nginx", _CONFIGURATION, ("-p", "{home}", "-c", "{config}", "-e", "{home}/error.log"))
