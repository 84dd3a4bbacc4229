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
    Count,
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
    """Connections to the API."""

    max_connections: Count = Field(100, description="Connections to the API at most")
    queue_limit: Annotated[int, Field(ge=0)] = Field(
        1000, description="Requests that may wait for a connection; more get 503"
    )
    queue_timeout: Timeout = Field(5, description="Seconds a request waits for a free connection, then 503")
    idle_timeout: Timeout = Field(55, description="Seconds after which an idle connection is closed")
    max_age: Timeout = Field(1800, description="Seconds after which a connection is not used again")
    warm_connections: Annotated[int, Field(ge=0, le=100)] = Field(
        1, description="Idle connections kept ready, TLS done; 0 turns it off"
    )
    warm_for: Seconds = Field(
        3600, description="Seconds after the last request for which they are kept ready"
    )
    connect_timeout: Timeout = Field(5, description="Seconds for TCP and TLS together, then 504")
    response_timeout: Timeout = Field(
        60, description="Seconds from a request's end to the answer's head, then 504"
    )
    idle_stream_timeout: Timeout = Field(
        60, description="Seconds without a byte of a body after which it is cut"
    )
    ca_file: Path | None = Field(
        None, description="PEM file of the authorities to trust instead of the system's"
    )
    client_cert: Path | None = Field(None, description="PEM file of the certificate to present to the API")
    client_key: Path | None = Field(None, description="PEM file of its private key, where it is another")


class ListenTlsSettings(Group):
    """TLS with clients, on the TCP addresses of `listen`; Unix sockets stay plain."""

    cert: Path | None = Field(
        None,
        description="PEM file of the certificate, with its chain, for TLS on the TCP addresses of "
        "BITS_LISTEN; watched for changes",
    )
    key: Path | None = Field(None, description="PEM file of its private key; watched too")
    client_ca: Path | None = Field(
        None,
        description="PEM file of the authorities whose certificates clients must present; watched too; "
        "unset: they need none",
    )


class LimitSettings(Group):
    """What clients may use."""

    max_connections: Count = Field(1000, description="Client connections at most; more wait to be accepted")
    request_line: Annotated[int, Field(ge=128)] = Field(8192, description="Bytes of a request line, else 414")
    head: Annotated[int, Field(ge=256)] = Field(32_768, description="Bytes of a request's head, else 431")
    fields: Count = Field(100, description="Header fields of a request, else 431")
    head_timeout: Timeout = Field(10, description="Seconds from a head's first byte to its end, else 408")
    keepalive_timeout: Timeout = Field(75, description="Seconds after which an idle client is disconnected")
    replay_body: Bytes = Field(
        65_536, description="Bytes of a request's body that are held for sending it again"
    )
    replay_total: Bytes = Field(16_777_216, description="Bytes of all bodies that are held for that")


class EmulatorSettings(Group):
    """The Bits API emulator of `demo` and `emulator`."""

    listen: Address = Field(
        TcpAddress("127.0.0.1", 8090), description="Where the emulator listens, host:port"
    )
    token_lifetime: Annotated[float, Field(gt=0, le=86_400)] = Field(
        3600, description="Seconds that its tokens live"
    )
    client_id: str = Field("bits-demo", min_length=1, description="The client id it knows")
    client_secret: SecretStr = Field(SecretStr("bits-demo-secret"), description="The client secret it knows")
    token_delay: Seconds = Field(0, description="Seconds that its token endpoint takes")
    latency: Seconds = Field(0, description="Seconds that its other calls take")


class Settings(_Frozen):
    """All settings. Unknown keys are faults; secrets are masked wherever this is shown."""

    client_id: str | None = Field(None, description="The client id that Bits gave you")
    client_secret: SecretStr | None = Field(None, description="The client secret that Bits gave you")
    client_id_file: Path | None = Field(
        None, description="File that holds the client id; watched for changes"
    )
    client_secret_file: Path | None = Field(
        None, description="File that holds the client secret; watched too"
    )
    credentials_dir: Path | None = Field(
        None, description="Directory with the files client_id and client_secret, as a mounted Secret; watched"
    )
    api_url: Origin = Field(DEFAULT_API, description="Origin of the Bits API")
    token_url: Url | None = Field(None, description="The token endpoint; unset: /v1/oauth2/token at the API")
    https_proxy: EgressProxyUrl | None = Field(
        None, description="URL of the http proxy that leads to the API; unset: HTTPS_PROXY's value"
    )
    no_proxy: str | None = Field(
        None, description="Hosts that are reached without it, comma-separated; unset: NO_PROXY's value"
    )
    scope: str | None = Field(None, description="Scope to ask for, space-separated; unset: what Bits grants")
    allow_insecure_http: bool = Field(
        default=False,
        description="Whether the API may be plain http on another machine; secrets travel readable",
    )
    listen: Addresses | None = Field(
        None,
        description="Where clients call, host:port or unix:/path, comma-separated; "
        "unset: 127.0.0.1:8080 and, where there is IPv6, [::1]:8080",
    )
    socket_mode: Mode = Field(0o600, description="Permissions of Unix sockets, octal")
    admin_listen: Addresses = Field(
        (TcpAddress("127.0.0.1", 9090),),
        description="Where probes, metrics and status are, as in BITS_LISTEN",
    )
    log_level: LogLevel = Field("info", description="The least level that is logged")
    log_format: Literal["json", "console"] | None = Field(
        None, description="How log lines look (unset: console on a terminal, else json)"
    )
    access_log: Literal["all", "errors", "off"] = Field("errors", description="Which requests are logged")
    inspect: bool = Field(
        default=False,
        description="Whether the admin page shows headers and bodies, masked; on loopback only",
    )
    inspect_mask: Texts = Field(
        KYC_WORDS,
        description="What is masked there, besides credentials: all whose name contains one of these",
    )
    token_wait: Timeout = Field(5, description="Seconds a request waits for a token, then 503")
    client_authorization: Literal["replace", "keep", "reject"] = Field(
        "replace", description="What becomes of an Authorization that the client brings"
    )
    forwarded_headers: bool = Field(
        default=False, description="Whether the API is told of the client (X-Forwarded-For)"
    )
    allow: Rules = Field(
        (), description="What may be called, METHOD /path with * for any text, comma-separated; unset: all"
    )
    safe_operations: Texts = Field(
        ("*.get", "*.list"),
        description="Operations that change nothing and may be sent again, comma-separated",
    )
    allowed_hosts: Texts | None = Field(
        None,
        description="Host names that clients may call it by; unset: loopback names on loopback, else any",
    )
    allowed_origins: Origins = Field(
        (), description="Origins of web pages that may call, comma-separated; unset: none"
    )
    max_body_bytes: Annotated[int | None, Field(ge=0)] = Field(
        None, description="Bytes of a request's body at most, else 413; unset: no limit"
    )
    drain_delay: Seconds = Field(0, description="Seconds to accept connections still after SIGTERM")
    drain_timeout: Seconds = Field(25, description="Seconds for requests in flight to end after that")
    startup_grace: Seconds = Field(30, description="Seconds that /startupz waits for the first token")
    allow_core_dumps: bool = Field(
        default=False, description="Whether a crash may write memory, and so the secret, to a file"
    )
    allow_debuggers: bool = Field(
        default=False,
        description="Whether the same user's other processes may read its memory and environment",
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
        """The endpoint that names a token's owner. It is outside /v1, as documented."""
        return f"{self.api_url}/oauth2/userinfo"

    def proxy_for(self, url: str) -> str | None:
        """Return the URL of the egress proxy through which `url` is reached, None for a direct connection."""
        https_proxy = None if self.https_proxy is None else self.https_proxy.get_secret_value()
        return egress.proxy_for(url, https_proxy=https_proxy, no_proxy=self.no_proxy or "")
