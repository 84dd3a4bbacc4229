"""Builds single parts from the settings, for the sidecar and for the commands that need only one of them."""

import secrets
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from yarl import URL

from bits_auth_proxy.auth.bits_oauth import BitsOAuthClient, ClientCredentials
from bits_auth_proxy.clock import Clock
from bits_auth_proxy.errors import OperatorError, SettingError, reason_of
from bits_auth_proxy.forward.access import LOOPBACK_HOSTS, AccessRules, HostRule, SiteRule
from bits_auth_proxy.forward.admission import Admission
from bits_auth_proxy.forward.certificates import (
    CertificateError,
    CertificateFiles,
    ServerCertificate,
    TrustFiles,
    WatchedContext,
)
from bits_auth_proxy.forward.dialing import Dialer, client_context
from bits_auth_proxy.forward.headers import ClientAuthorization, RequestRules, ResponseRules, canonical_origin
from bits_auth_proxy.forward.listener import bind
from bits_auth_proxy.forward.write_batcher import WriteBatcher
from bits_auth_proxy.settings.addresses import ListenAddress, TcpAddress, UnixAddress, is_loopback
from bits_auth_proxy.settings.credentials import Credentials, CredentialsError, CredentialSource
from bits_auth_proxy.settings.fields import variable_of
from bits_auth_proxy.settings.model import Settings
from bits_auth_proxy.telemetry.log import Redactor
from bits_auth_proxy.threads import call_within
from bits_auth_proxy.transport import EgressProxy, egress_secrets, without_root

READ_LIMIT: Final = 5.0
"""Seconds that the first read of the credential files may take."""


def read_in_time(source: CredentialSource, *, limit: float = READ_LIMIT) -> Credentials:
    """Return the credentials. Raises CredentialsError, also if a mount does not answer within the limit."""
    if not source.watched:
        return source.read()
    try:
        return call_within(limit, source.read, name="files")
    except TimeoutError:
        text = f"{source.name} can't be read: no answer within {limit:g} s"
        raise CredentialsError(text) from None


def concealed(credentials: Credentials, redactor: Redactor) -> ClientCredentials:
    """Return the credentials as the token endpoint's client needs them, and keep them out of the log."""
    secret = credentials.client_secret.get_secret_value()
    ready = ClientCredentials(credentials.client_id, secret)
    redactor.add(secret, pinned=True)
    redactor.add(ready.authorization.removeprefix("Basic "), pinned=True)
    return ready


def trust(settings: Settings) -> WatchedContext | None:
    """Return the TLS settings of connections to the API, None if all are plain http. Raises SettingError."""
    upstream = settings.upstream
    if not any(url.startswith("https:") for url in (settings.api_url, settings.effective_token_url)):
        return None
    files = TrustFiles(upstream.ca_file, upstream.client_cert, upstream.client_key)
    try:
        return WatchedContext(files, make=lambda: _client_context(files))
    except CertificateError as error:
        raise _trust_fault(error) from None


def poll_trust(context: WatchedContext) -> bool:
    """Load the files anew if they have changed; return whether they had. Raises SettingError."""
    try:
        return context.poll()
    except CertificateError as error:
        raise _trust_fault(error) from None


def current_context(context: WatchedContext | None) -> Callable[[], ssl.SSLContext] | None:
    """Return what tells the TLS settings of a new connection, None for plain http."""
    return None if context is None else lambda: context.context


def _client_context(files: TrustFiles) -> ssl.SSLContext:
    given = {name: str(path) for name, path in files._asdict().items() if path is not None}
    try:
        return client_context(
            ca_file=given.get("ca_file"),
            client_cert=given.get("client_cert"),
            client_key=given.get("client_key"),
        )
    except OSError as error:
        names = ", ".join(f"BITS_UPSTREAM__{name.upper()}" for name in given)
        raise SettingError(f"{names}: not usable for TLS: {reason_of(error)}") from None


def _trust_fault(error: CertificateError) -> SettingError:
    return SettingError(f"BITS_UPSTREAM__{error.name.upper()}: {error}")


def listen_certificate(settings: Settings) -> ServerCertificate | None:
    """Return the listeners' certificate, or None if clients use plain http. Raises SettingError."""
    files = settings.listen_tls
    if files.cert is None or files.key is None:
        return None
    try:
        return ServerCertificate(
            CertificateFiles(files.cert, files.key, files.client_ca, files.crl),
            allowed_names=files.allowed_names,
        )
    except CertificateError as error:
        raise _certificate_fault(error) from None


def poll_certificate(certificate: ServerCertificate) -> bool:
    """Reload the certificate if its files have changed; return whether they had. Raises SettingError."""
    try:
        return certificate.poll()
    except CertificateError as error:
        raise _certificate_fault(error) from None


def _certificate_fault(error: CertificateError) -> SettingError:
    """Return the error with the variable that names the file at fault."""
    return SettingError(f"BITS_LISTEN_TLS__{error.name.upper()}: {error}")


def egress_proxy(settings: Settings, redactor: Redactor) -> EgressProxy | None:
    """Return the egress proxy that leads to the API, if one does.

    Keep the password of the egress proxy out of the log, whatever the proxy leads to.
    """
    if settings.https_proxy is not None:
        for secret in egress_secrets(settings.https_proxy.get_secret_value()):
            redactor.add(secret, pinned=True)
    return _egress_for(settings, settings.api_url)


def _egress_for(settings: Settings, url: str) -> EgressProxy | None:
    proxy = settings.proxy_for(url)
    return None if proxy is None else EgressProxy.parse(proxy)


def build_oauth(settings: Settings, *, context: WatchedContext | None, clock: Clock) -> BitsOAuthClient:
    """Return the client of the token endpoint."""
    return BitsOAuthClient(
        token_url=settings.effective_token_url,
        userinfo_url=settings.userinfo_url,
        scope=settings.scope,
        context=current_context(context),
        egress_for=partial(_egress_for, settings),
        clock=clock,
    )


def build_dialer(
    settings: Settings,
    *,
    context: WatchedContext | None,
    clock: Clock,
    batcher: WriteBatcher,
    redactor: Redactor,
) -> Dialer:
    """Return the dialer for the API; it uses `context` only for https."""
    api = URL(settings.api_url)
    return Dialer(
        host=api.host or "",
        port=api.port or 0,
        context=current_context(context) if api.scheme == "https" else None,
        timeout=settings.upstream.connect_timeout,
        clock=clock,
        batcher=batcher,
        proxy=egress_proxy(settings, redactor),
    )


def request_rules(settings: Settings) -> RequestRules:
    """Return the rules for the heads of requests."""
    return RequestRules(
        authority=_origin(settings).authority,
        # Each instance has a pseudonym of its own, so only a real loop is taken for one.
        pseudonym=b"bits-auth-proxy-%b" % secrets.token_hex(4).encode(),
        authorization=ClientAuthorization(settings.client_authorization),
        forwarded=settings.forwarded_headers,
    )


def response_rules(settings: Settings) -> ResponseRules:
    """Return the rules for the heads of responses."""
    origin = _origin(settings)
    return ResponseRules(origin=canonical_origin(origin.scheme, origin.authority))


def access_rules(settings: Settings) -> AccessRules:
    """Return the rules for methods and paths."""
    api, token = URL(settings.api_url), URL(settings.effective_token_url)
    return AccessRules(
        allow=settings.allow,
        safe_operations=settings.safe_operations,
        token_path=token.raw_path if _host_of(token) == _host_of(api) else None,
        encoded_paths=settings.allow_encoded_paths,
    )


def _host_of(url: URL) -> str:
    return (url.host or "").lower().removesuffix(".")


def build_admission(
    settings: Settings, address: ListenAddress, *, access: AccessRules, request_rules: RequestRules
) -> Admission:
    """Return the rules by which a listener admits requests; all listeners share `access` and its cache."""
    return Admission(
        access=access,
        host_rule=HostRule(
            allowed=_allowed_hosts(settings, address),
            upstream=_origin(settings).authority,
            exposed=isinstance(address, TcpAddress),
            local=isinstance(address, UnixAddress),
        ),
        site_rule=SiteRule(allowed_origins=settings.allowed_origins),
        request_rules=request_rules,
        max_body=settings.max_body_bytes,
        hosts_setting=variable_of("allowed_hosts"),
    )


def bind_for(variable: str, address: ListenAddress, socket_mode: int = 0o600) -> socket.socket:
    """Return a socket that listens on `address`, which `variable` names. Raises OperatorError."""
    plain = address.path if isinstance(address, UnixAddress) else (address.host, address.port)
    try:
        return bind(plain, socket_mode=socket_mode)
    except OSError as error:
        raise OperatorError(f"{variable}: can't listen on {address}: {error.strerror}") from error


def bound_address(address: ListenAddress, sock: socket.socket) -> ListenAddress:
    """Return `address` with the socket's actual port."""
    if isinstance(address, UnixAddress):
        return address
    return TcpAddress(address.host, sock.getsockname()[1])


class _Origin(NamedTuple):
    """Scheme and authority, as they appear in a URL."""

    scheme: bytes
    authority: bytes


def _origin(settings: Settings) -> _Origin:
    """Return the API's origin, as Host and Location name it."""
    api = URL(settings.api_url)
    host = without_root(api.host_subcomponent or "")
    port = api.explicit_port
    return _Origin(api.scheme.encode(), (host if port is None else f"{host}:{port}").encode())


def _allowed_hosts(settings: Settings, address: ListenAddress) -> list[str] | None:
    """Return the host names that a listener serves, or None for all. The default depends on the address."""
    if isinstance(address, TcpAddress) and is_loopback(address):
        own = f"[{address.host}]" if ":" in address.host else address.host
        return [*(name.decode() for name in LOOPBACK_HOSTS), own, *(settings.allowed_hosts or ())]
    return None if settings.allowed_hosts is None else list(settings.allowed_hosts)
