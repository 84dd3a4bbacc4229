"""Which egress proxy leads to a URL, by the rules of HTTPS_PROXY and NO_PROXY."""

import ipaddress
from urllib.parse import urlsplit


def proxy_for(url: str, *, https_proxy: str | None, no_proxy: str) -> str | None:
    """Return the URL of the proxy through which `url` is reached, None for a direct connection.

    Only https goes through the proxy. `no_proxy` lists, separated by commas, the hosts that are reached
    directly.
    """
    if https_proxy is None or not url.startswith("https:"):
        return None
    return None if is_exempt(urlsplit(url).hostname or "", no_proxy) else https_proxy


def is_exempt(host: str, no_proxy: str) -> bool:
    """Return whether `no_proxy` names `host`: itself, a domain above it, its network, or all hosts (`*`)."""
    for entry in filter(None, (part.strip().lower() for part in no_proxy.split(","))):
        if entry == "*" or host == entry.lstrip(".") or host.endswith("." + entry.lstrip(".")):
            return True
        try:
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:
            continue
    return False
