"""Every setting: its type, its default and what it is for.

`loading` fills the models. pydantic-settings does not: its sources merge values and forget the variable or
line that each came from, and a fault must name it.
"""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from bits_auth_proxy.settings import egress
from bits_auth_proxy.settings.addresses import TcpAddress
from bits_auth_proxy.settings.values import (
    Address,
    Addresses,
    Bytes,
    ClientNames,
    Count,
    CustomerId,
    EgressProxyUrl,
    LogLevel,
    Mode,
    Origin,
    Origins,
    Rules,
    Seconds,
    Texts,
    Timeout,
    Url,
)

DEFAULT_API: Final = "https://api.bits.bi"
KYC_WORDS: Final = (
    "account",
    "address",
    "biometric",
    "birth",
    "card",
    "city",
    "dob",
    "document",
    "email",
    "face",
    "gender",
    "iban",
    "identity",
    "image",
    "income",
    "license",
    "mobile",
    "name",
    "nationality",
    "nationalid",
    "passport",
    "personal",
    "phone",
    "photo",
    "picture",
    "postal",
    "selfie",
    "ssn",
    "street",
    "tax",
    "video",
    "zip",
)
"""The names of members that hold personal data contain one of these."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Group(_Frozen):
    """Settings that share the first part of their dotted name; a table in the TOML file."""


class UpstreamSettings(Group):
    """How the proxy connects to the API."""

    max_connections: Count = Field(100, description="The maximum number of connections to the API.")
    queue_limit: Annotated[int, Field(ge=0)] = Field(
        1000,
        description="The maximum number of requests that may wait for a connection. Further requests are "
        "answered with 503.",
    )
    queue_timeout: Timeout = Field(
        5,
        description="How many seconds a request may wait for a free connection before it is answered with "
        "503. While the proxy is making a connection, the request waits for the result instead, for at most "
        "twice BITS_UPSTREAM__CONNECT_TIMEOUT more.",
    )
    idle_timeout: Timeout = Field(
        55, description="How many seconds a connection may be idle before it is closed."
    )
    max_age: Timeout = Field(
        1800, description="The age in seconds at which a connection is no longer used for further requests."
    )
    warm_connections: Annotated[int, Field(ge=0, le=100)] = Field(
        1, description="How many idle connections are kept ready, with TLS set up. 0 turns this off."
    )
    warm_for: Seconds = Field(
        3600, description="For how many seconds after the last request idle connections are kept ready."
    )
    connect_timeout: Timeout = Field(
        5,
        description="How many seconds TCP and TLS together may take in one connection attempt. If only TCP "
        "succeeds in that time, the other addresses get one more attempt. After that, the request is "
        "answered with 504.",
    )
    response_timeout: Timeout = Field(
        60,
        description="How many seconds may pass from the end of a request to the head of the response before "
        "the request is answered with 504.",
    )
    idle_stream_timeout: Timeout = Field(
        60, description="How many seconds may pass without a byte of a body before the transfer is cut."
    )
    ca_file: Path | None = Field(
        None,
        description="The PEM file with the certificate authorities to trust instead of the system's. "
        "The proxy watches it for changes.",
    )
    client_cert: Path | None = Field(
        None,
        description="The PEM file with the certificate that the proxy presents to the API. The proxy "
        "watches it for changes.",
    )
    client_key: Path | None = Field(
        None,
        description="The PEM file with the private key of that certificate, if the key is in a separate "
        "file. The proxy watches it for changes.",
    )


class ListenTlsSettings(Group):
    """TLS with clients on the TCP addresses of `listen`. Unix sockets do not use TLS."""

    cert: Path | None = Field(
        None,
        description="The PEM file with the certificate and its chain for TLS on the TCP addresses of "
        "BITS_LISTEN. The proxy watches it for changes.",
    )
    key: Path | None = Field(
        None,
        description="The PEM file with the private key of that certificate. The proxy watches it for "
        "changes.",
    )
    client_ca: Path | None = Field(
        None,
        description="The PEM file with the certificate authorities, one of which must have signed a "
        "client's certificate. The proxy watches it for changes. If unset, clients need no certificate.",
    )
    allowed_names: ClientNames | None = Field(
        None,
        description="The DNS names and SPIFFE IDs, comma-separated, one of which must be in a client's "
        "certificate. If unset, every certificate of BITS_LISTEN_TLS__CLIENT_CA is accepted.",
    )
    crl: Path | None = Field(
        None,
        description="The PEM file with the revocation lists of these authorities. Each authority in a "
        "client's chain needs one. The proxy watches it for changes.",
    )


class LimitSettings(Group):
    """Limits on what clients may use."""

    max_connections: Count = Field(
        1000, description="The maximum number of client connections. Further connections wait to be accepted."
    )
    per_client: Annotated[int, Field(ge=0)] = Field(
        0,
        description="The maximum number of requests in flight, WebSockets included, that a gateway accepts "
        "from one client address. Further requests are answered with 503. 0 turns this off. Clients of Unix "
        "sockets have no addresses, so they are not limited.",
    )
    request_line: Annotated[int, Field(ge=128)] = Field(
        8192,
        description="The maximum size of a request line in bytes. A request with a longer one is answered "
        "with 414.",
    )
    head: Annotated[int, Field(ge=256)] = Field(
        32_768,
        description="The maximum size of a request's head in bytes. A request with a larger one is answered "
        "with 431.",
    )
    fields: Count = Field(
        100,
        description="The maximum number of header fields in a request. A request with more is answered with "
        "431.",
    )
    head_timeout: Timeout = Field(
        10,
        description="How many seconds a request's head may take from its first byte to its end before the "
        "request is answered with 408.",
    )
    keepalive_timeout: Timeout = Field(
        75, description="How many seconds a client connection may be idle before it is closed."
    )
    replay_body: Bytes = Field(
        65_536,
        description="The maximum size in bytes of a request body that the proxy holds so that it can send "
        "the request again. A body that a Content-Length of at most this size announces is taken in before "
        "the request uses a connection to the API.",
    )
    replay_total: Bytes = Field(
        16_777_216,
        description="The maximum size in bytes of all the request bodies together that the proxy holds. "
        "What goes beyond it is streamed.",
    )


class EmulatorSettings(Group):
    """The Bits API emulator that the commands `demo` and `emulator` run."""

    listen: Address = Field(
        TcpAddress("127.0.0.1", 8090), description="The address on which the emulator listens, as host:port."
    )
    token_lifetime: Annotated[float, Field(gt=0, le=86_400)] = Field(
        3600, description="How many seconds the emulator's tokens live."
    )
    client_id: str = Field("bits-demo", min_length=1, description="The client id that the emulator accepts.")
    client_secret: SecretStr = Field(
        SecretStr("bits-demo-secret"), description="The client secret that the emulator accepts."
    )
    token_delay: Seconds = Field(
        0, description="How many seconds the emulator's token endpoint takes to respond."
    )
    latency: Seconds = Field(0, description="How many seconds the emulator takes to respond to other calls.")


class Settings(_Frozen):
    """All settings. An unknown key is an error. Secrets are masked wherever the settings are shown."""

    client_id: str | None = Field(None, description="The client id that Bits gave you.")
    client_secret: SecretStr | None = Field(None, description="The client secret that Bits gave you.")
    client_id_file: Path | None = Field(
        None, description="The file that contains the client id. The proxy watches it for changes."
    )
    client_secret_file: Path | None = Field(
        None, description="The file that contains the client secret. The proxy watches it for changes."
    )
    credentials_dir: Path | None = Field(
        None,
        description="The directory that contains the files client_id and client_secret, such as a mounted "
        "Secret. The proxy watches it for changes.",
    )
    credentials_wait: Seconds = Field(
        30,
        description="How many seconds `run` waits for credential files that are not there when it starts. 0 "
        "turns this off.",
    )
    expected_customer_id: CustomerId | None = Field(
        None,
        description="The customer id that /oauth2/userinfo must name for the credentials. A pair that "
        "belongs to another customer is never used.",
    )
    allow_customer_change: bool = Field(
        default=False,
        description="Whether credentials may be replaced by those of another customer while the proxy runs.",
    )
    api_url: Origin = Field(DEFAULT_API, description="The origin of the Bits API.")
    token_url: Url | None = Field(
        None, description="The URL of the token endpoint. If unset, it is /v1/oauth2/token at the API."
    )
    https_proxy: EgressProxyUrl | None = Field(
        None,
        description="The URL of the http egress proxy through which the API is reached over https. If unset, "
        "the value of HTTPS_PROXY is used.",
    )
    no_proxy: str | None = Field(
        None,
        description="The hosts that are reached without the egress proxy, comma-separated: host, host:port, "
        ".domain, *.domain, networks like 10.0.0.0/8, or * for all. If unset, the value of NO_PROXY is used.",
    )
    scope: str | None = Field(
        None, description="The scope to request, space-separated. If unset, no scope is requested."
    )
    allow_insecure_http: bool = Field(
        default=False,
        description="Whether the API may be on another machine and use plain http. Secrets then cross the "
        "network unencrypted.",
    )
    listen: Addresses | None = Field(
        None,
        description="The addresses that clients call, as host:port or unix:/path, comma-separated. If "
        "unset, they are 127.0.0.1:8080 and, where IPv6 is available, [::1]:8080.",
    )
    socket_mode: Mode = Field(
        0o600, description="The permissions of the Unix sockets in BITS_LISTEN, in octal."
    )
    admin_listen: Addresses = Field(
        (TcpAddress("127.0.0.1", 9090),),
        description="The addresses of the probes, the metrics and the status, written as in BITS_LISTEN.",
    )
    admin_socket_mode: Mode = Field(
        0o600, description="The permissions of the Unix sockets in BITS_ADMIN_LISTEN, in octal."
    )
    log_level: LogLevel = Field("info", description="The lowest level that is logged.")
    log_format: Literal["json", "console"] | None = Field(
        None,
        description="The format of log lines. If unset, it is console on a terminal and json everywhere "
        "else.",
    )
    access_log: Literal["all", "errors", "off"] = Field("errors", description="Which requests are logged.")
    inspect: bool = Field(
        default=False,
        description="Whether the admin page shows headers and bodies, masked. This is possible on loopback "
        "only.",
    )
    inspect_mask: Texts = Field(
        KYC_WORDS,
        description="Words, comma-separated. In addition to credentials, the admin page masks every value "
        "whose name contains one of them.",
    )
    token_wait: Timeout = Field(
        5, description="How many seconds a request may wait for a token before it is answered with 503."
    )
    client_authorization: Literal["keep", "replace", "reject"] = Field(
        "keep",
        description="What happens to a request that brings its own Authorization field: the API gets that "
        "field, the proxy's token replaces it, or the request is answered with 400.",
    )
    forwarded_headers: bool = Field(
        default=False, description="Whether the proxy tells the API about the client (X-Forwarded-For)."
    )
    allow: Rules = Field(
        (),
        description="The calls that are allowed, as METHOD /path with * for any text, comma-separated. If "
        "unset, all calls are allowed.",
    )
    allow_encoded_paths: bool = Field(
        default=False,
        description="Whether a path may contain any percent-encoded character, such as %2F or %E9. Otherwise "
        "it may contain only those that must be encoded, as UTF-8.",
    )
    safe_operations: Texts = Field(
        ("*.get", "*.list"),
        description="The operations that change nothing and may be sent again, comma-separated.",
    )
    allowed_hosts: Texts | None = Field(
        None,
        description="The host names by which clients may call the proxy, comma-separated. If unset, "
        "loopback addresses accept only loopback names. Other addresses accept any name, but GET, HEAD and "
        "OPTIONS requests only under names that no web page can have, such as sidecar, 192.0.2.7 or "
        "proxy.local.",
    )
    allowed_origins: Origins = Field(
        (),
        description="The origins of the web pages that may call the proxy, comma-separated. If unset, no "
        "web page may.",
    )
    max_body_bytes: Annotated[int | None, Field(ge=0)] = Field(
        None,
        description="The maximum size of a request body in bytes. A request with a larger one is answered "
        "with 413. If unset, there is no limit.",
    )
    drain_delay: Seconds = Field(
        0, description="For how many seconds after SIGTERM the proxy still accepts connections."
    )
    drain_timeout: Seconds = Field(
        25, description="How many seconds requests in flight have to finish after BITS_DRAIN_DELAY."
    )
    startup_grace: Seconds = Field(30, description="How many seconds /startupz waits for the first token.")
    allow_core_dumps: bool = Field(
        default=False,
        description="Whether a crash may write the process's memory, and thus the secret, to a file.",
    )
    allow_debuggers: bool = Field(
        default=False,
        description="Whether other processes of the same user may read the proxy's memory and environment "
        "(Linux only).",
    )
    listen_tls: ListenTlsSettings = ListenTlsSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    limits: LimitSettings = LimitSettings()
    emulator: EmulatorSettings = EmulatorSettings()

    @property
    def effective_token_url(self) -> str:
        """The token endpoint."""
        return self.token_url or f"{self.api_url}/v1/oauth2/token"

    @property
    def userinfo_url(self) -> str:
        """Where the API names the owner of a token; outside of /v1, as documented."""
        return f"{self.api_url}/oauth2/userinfo"

    def proxy_for(self, url: str) -> str | None:
        """Return the URL of the egress proxy through which `url` is reached, None for a direct connection."""
        https_proxy = None if self.https_proxy is None else self.https_proxy.get_secret_value()
        return egress.proxy_for(url, https_proxy=https_proxy, no_proxy=self.no_proxy or "")
