"""Finds what is wrong with settings together, or with the files they name; each value by itself is valid."""

import os
from collections.abc import Iterator
from operator import attrgetter
from typing import Final, NamedTuple

from bits_auth_proxy.settings.addresses import is_loopback, is_loopback_url
from bits_auth_proxy.settings.disclosure import shown_path
from bits_auth_proxy.settings.egress import is_proxied
from bits_auth_proxy.settings.fields import variable_of
from bits_auth_proxy.settings.model import Settings

# Only one setting of each pair may be given.
_EXCLUSIVE: Final = (
    ("client_id", "client_id_file"),
    ("client_secret", "client_secret_file"),
    ("credentials_dir", "client_id"),
    ("credentials_dir", "client_secret"),
    ("credentials_dir", "client_id_file"),
    ("credentials_dir", "client_secret_file"),
)
# The first setting of each pair needs the second.
_DEPENDENT: Final = (
    ("upstream.client_key", "upstream.client_cert"),
    ("listen_tls.cert", "listen_tls.key"),
    ("listen_tls.key", "listen_tls.cert"),
    ("listen_tls.client_ca", "listen_tls.cert"),
    ("listen_tls.allowed_names", "listen_tls.client_ca"),
    ("listen_tls.crl", "listen_tls.client_ca"),
)
_CREDENTIAL_FILES: Final = ("client_id_file", "client_secret_file")
_FILES: Final = (
    *_CREDENTIAL_FILES,
    "listen_tls.cert",
    "listen_tls.key",
    "listen_tls.client_ca",
    "listen_tls.crl",
    "upstream.ca_file",
    "upstream.client_cert",
    "upstream.client_key",
)


class Disagreement(NamedTuple):
    """A fault, and the dotted names of the settings that it follows from."""

    names: tuple[str, ...]
    fault: str


def disagreements(
    settings: Settings, *, credentials_required: bool, credentials_awaited: bool = False
) -> Iterator[Disagreement]:
    """Yield every fault that the settings have together or with the file system.

    With `credentials_awaited`, the credential files may come later, if `credentials_wait` allows it.
    """
    yield from _contradictions(settings)
    yield from _exposed_inspection(settings)
    if credentials_required and settings.credentials_dir is None:
        yield from _missing_credentials(settings)
    yield from _unprintable_credentials(settings)
    yield from _missing_files(settings, awaited=credentials_awaited and settings.credentials_wait > 0)
    yield from _readable_secrets(settings)


def needs_egress_proxy(settings: Settings) -> bool:
    """Return whether the API or the token endpoint is reached through an egress proxy, if there is one."""
    urls = (settings.api_url, settings.effective_token_url)
    return any(is_proxied(url, settings.no_proxy or "") for url in urls)


def _contradictions(settings: Settings) -> Iterator[Disagreement]:
    for one, other in _EXCLUSIVE:
        if getattr(settings, one) is not None and getattr(settings, other) is not None:
            text = f"{variable_of(one)}: set either this or {variable_of(other)}, not both"
            yield Disagreement((one, other), text)
    for one, other in _DEPENDENT:
        if attrgetter(one)(settings) is not None and attrgetter(other)(settings) is None:
            yield Disagreement(
                (one, other), f"{variable_of(one)}: has no effect without {variable_of(other)}"
            )


def _exposed_inspection(settings: Settings) -> Iterator[Disagreement]:
    if settings.inspect:
        for name in ("listen", "admin_listen"):
            for address in getattr(settings, name) or ():
                if not is_loopback(address):
                    text = f"use loopback: BITS_INSPECT=true keeps requests, and others can reach {address}"
                    yield Disagreement((name, "inspect"), f"{variable_of(name)}: {text}")


def _missing_credentials(settings: Settings) -> Iterator[Disagreement]:
    for name in ("client_id", "client_secret"):
        file = f"{name}_file"
        if getattr(settings, name) is None and getattr(settings, file) is None:
            text = f"{variable_of(name)}: is missing; set it, {variable_of(file)} or BITS_CREDENTIALS_DIR"
            yield Disagreement((name, file, "credentials_dir"), text)


def _unprintable_credentials(settings: Settings) -> Iterator[Disagreement]:
    secret = settings.client_secret
    given = {
        "client_id": settings.client_id,
        "client_secret": None if secret is None else secret.get_secret_value(),
    }
    for name, value in given.items():
        if value is not None and not value.isprintable():
            what = "a byte order mark" if "\ufeff" in value else "a line break or another control character"
            text = f"{variable_of(name)}: contains {what}"
            yield Disagreement((name,), text)


# Unlike Path's methods, these functions say of a name that is too long for a file only that there is none.
# ruff: noqa: PTH110, PTH112, PTH113


def _missing_files(settings: Settings, *, awaited: bool) -> Iterator[Disagreement]:
    for name in _FILES:
        path = None if awaited and name in _CREDENTIAL_FILES else attrgetter(name)(settings)
        if path is not None and not os.path.isfile(path):
            text = f"{path} is not a file" if os.path.exists(path) else f"there is no file {shown_path(path)}"
            yield Disagreement((name,), f"{variable_of(name)}: {text}")
    directory = None if awaited else settings.credentials_dir
    if directory is not None and not os.path.isdir(directory):
        text = f"BITS_CREDENTIALS_DIR: there is no directory {shown_path(directory)}"
        yield Disagreement(("credentials_dir",), text)


def _readable_secrets(settings: Settings) -> Iterator[Disagreement]:
    for name in ("api_url", "token_url"):
        url = getattr(settings, name) or ""
        if url.startswith("http:") and not is_loopback_url(url) and not settings.allow_insecure_http:
            text = f"{variable_of(name)}: plain http to another machine exposes the secret; use https"
            text += ", or set BITS_ALLOW_INSECURE_HTTP=true"
            yield Disagreement((name, "allow_insecure_http"), text)
