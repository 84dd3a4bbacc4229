"""Envoy as a contender: `credential_injector` with OAuth 2.0 client credentials.

The token comes from the upstream's token endpoint. One worker, keep-alive pools of the size the others have,
no access log, no admin listener; statistics stay on, as the other proxies' metrics do.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

_TYPE: Final = "type.googleapis.com/envoy.extensions."
_HTTP: Final = _TYPE + "filters.http."


def credential_injector(
    directory: Path,
    *,
    port: int,
    scheme: str,
    authority: str,
    ca_file: Path,
    pool_size: int,
) -> list[str]:
    """Return the command of an Envoy that keeps a token and injects it. Raises RuntimeError without one."""
    package = find_spec("envoy")
    if package is None or package.origin is None:
        raise RuntimeError("Envoy is missing: `make bench` installs it where there is one for the machine")
    clusters = [_cluster(name, scheme, authority, ca_file, pool_size) for name in ("api", "token")]
    bootstrap = {
        "static_resources": {
            "secrets": [
                {"name": "client-secret", "generic_secret": {"secret": {"inline_string": "benchmark-secret"}}}
            ],
            "listeners": [
                {
                    "name": "clients",
                    "address": _address("127.0.0.1", port),
                    "filter_chains": [
                        {
                            "filters": [
                                {
                                    "name": "envoy.filters.network.http_connection_manager",
                                    "typed_config": _connection_manager(scheme, authority),
                                }
                            ]
                        }
                    ],
                }
            ],
            "clusters": clusters,
        }
    }
    config = directory / "envoy.json"
    config.write_text(json.dumps(bootstrap, indent=2))
    binary = Path(package.origin).parent / "_bin" / "envoy"
    command = [str(binary), "--config-path", str(config), "--concurrency", "1"]
    return [*command, "--disable-hot-restart", "--log-level", "warning"]


def _connection_manager(scheme: str, authority: str) -> dict[str, Any]:
    return {
        "@type": _TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "clients",
        "codec_type": "HTTP1",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "api",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "route": {"cluster": "api", "host_rewrite_literal": authority, "timeout": "60s"},
                        }
                    ],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.credential_injector",
                "typed_config": {
                    "@type": _HTTP + "credential_injector.v3.CredentialInjector",
                    "overwrite": True,
                    "credential": {
                        "name": "envoy.http.injected_credentials.oauth2",
                        "typed_config": _oauth2(scheme, authority),
                    },
                },
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": _HTTP + "router.v3.Router"},
            },
        ],
    }


def _oauth2(scheme: str, authority: str) -> dict[str, Any]:
    return {
        "@type": _TYPE + "http.injected_credentials.oauth2.v3.OAuth2",
        "token_endpoint": {
            "cluster": "token",
            "uri": f"{scheme}://{authority}/v1/oauth2/token",
            "timeout": "5s",
        },
        "client_credentials": {"client_id": "benchmark", "client_secret": {"name": "client-secret"}},
    }


def _cluster(name: str, scheme: str, authority: str, ca_file: Path, pool_size: int) -> dict[str, Any]:
    host, _, port = authority.rpartition(":")
    cluster: dict[str, Any] = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [{"max_connections": pool_size}]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(host, int(port))}}]}],
        },
    }
    if scheme == "https":
        cluster["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": _TYPE + "transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": {
                    "alpn_protocols": ["http/1.1"],
                    # As a client Envoy speaks TLS 1.2 unless told otherwise; all others speak 1.3.
                    "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
                    "validation_context": {
                        "trusted_ca": {"filename": str(ca_file)},
                        "match_typed_subject_alt_names": [
                            {"san_type": "IP_ADDRESS", "matcher": {"exact": host}}
                        ],
                    },
                },
            },
        }
    return cluster


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
