"""Every setting, and the only reader of the environment.

Sources, later ones win: TOML file < .env < environment < flags. They are put together in `loading`,
not by pydantic-settings, because every fault has to name its variable and where it came from, all at once.
"""

import ipaddress
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, WithJsonSchema
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from bits_auth_proxy.settings.addresses import ListenAddress, TcpAddress, parse_address

DEFAULT_API: Final = "https://api.bits.bi"
PREFIX: Final = "BITS_"
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
"""What the names of personal data contain."""
METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "*"))


def _split(value: Any) -> Any:
    """Turn `a, b` into a list; in a TOML file it is one already."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _address(value: Any) -> Any:
    if isinstance(value, tuple):
        return value
    return parse_address(value if isinstance(value, str) else "")


def _addresses(value: Any) -> Any:
    parts = _split(value)
    if isinstance(parts, list):
        if not parts:
            raise ValueError("name at least one address")
        return tuple(_address(part) for part in parts)
    return parts


def _mode(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = int(value.removeprefix("0o"), 8)
        except ValueError:
            raise ValueError("write an octal mode like 660") from None
    if isinstance(value, int) and not 0 <= value <= 0o777:  # noqa: PLR2004 - all permission bits
        raise ValueError("a mode must be between 0 and 777")
    return value


def _origin(value: Any) -> Any:
    if isinstance(value, str):
        parts = _url_parts(value)
        if parts.path not in ("", "/") or parts.query:
            raise ValueError("write only the scheme and the host, without a path or a query")
        return f"{parts.scheme}://{parts.netloc.lower()}"
    return value


def _url(value: Any) -> Any:
    if isinstance(value, str):
        _url_parts(value)
    return value


def _url_parts(value: str) -> Any:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        parts, usable = urlsplit(""), False
    if not usable:
        raise ValueError("write a URL like https://api.bits.bi")
    if "@" in parts.netloc or parts.fragment or not value.isprintable() or " " in value:
        raise ValueError("a URL must not contain user information, a fragment or spaces")
    return parts


def _proxy(value: Any) -> Any:
    if isinstance(value, str):
        try:
            parts = urlsplit(value)
            usable = parts.scheme == "http" and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable or not value.isprintable() or " " in value:
            raise ValueError("write http://host:port or http://user:password@host:port")
    return value


def _rules(value: Any) -> Any:
    rules = _split(value)
    for rule in rules if isinstance(rules, list) else ():
        method, _, path = str(rule).partition(" ")
        if method not in METHODS or not path.startswith(("/", "*")) or " " in path:
            raise ValueError(f"{rule!r} is not a rule: write METHOD /path, where * matches any text")
    return rules


def _origins(value: Any) -> Any:
    origins = _split(value)
    for origin in origins if isinstance(origins, list) else ():
        _origin(origin)
    return origins


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Seconds = Annotated[float, Field(ge=0, le=86_400 * 366, allow_inf_nan=False)]
Timeout = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Bytes = Annotated[int, Field(ge=0)]
_TEXT: Final[dict[str, Any]] = {"type": "string"}
_LIST = WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]})
Texts = Annotated[tuple[str, ...], BeforeValidator(_split), _LIST]
Rules = Annotated[tuple[str, ...], BeforeValidator(_rules), _LIST]
Origins = Annotated[tuple[str, ...], BeforeValidator(_origins), _LIST]
Address = Annotated[ListenAddress, BeforeValidator(_address), WithJsonSchema(_TEXT)]
Addresses = Annotated[tuple[ListenAddress, ...], BeforeValidator(_addresses), _LIST]
Mode = Annotated[int, BeforeValidator(_mode), WithJsonSchema({"type": ["string", "integer"]})]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class UpstreamSettings(_Group):
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
        "503.",
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
        description="How many seconds TCP and TLS together may take before the request is answered with 504.",
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
        None, description="The PEM file with the certificate authorities to trust instead of the system's."
    )
    client_cert: Path | None = Field(
        None, description="The PEM file with the certificate that the proxy presents to the API."
    )
    client_key: Path | None = Field(
        None,
        description="The PEM file with the private key of that certificate, if the key is in a separate "
        "file.",
    )


class ListenTlsSettings(_Group):
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


class LimitSettings(_Group):
    """Limits on what clients may use."""

    max_connections: Count = Field(
        1000, description="The maximum number of client connections. Further connections wait to be accepted."
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
        "the request again.",
    )
    replay_total: Bytes = Field(
        16_777_216,
        description="The maximum size in bytes of all the request bodies together that the proxy holds for "
        "this purpose.",
    )


class EmulatorSettings(_Group):
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


class Settings(BaseSettings):
    """All settings. An unknown key is an error. Secrets are masked wherever the settings are shown."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, env_prefix=PREFIX, env_nested_delimiter="__"
    )

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
    api_url: Annotated[str, BeforeValidator(_origin)] = Field(
        DEFAULT_API, description="The origin of the Bits API."
    )
    token_url: Annotated[str | None, BeforeValidator(_url)] = Field(
        None, description="The URL of the token endpoint. If unset, it is /v1/oauth2/token at the API."
    )
    https_proxy: Annotated[SecretStr | None, BeforeValidator(_proxy)] = Field(
        None,
        description="The URL of the http egress proxy through which the API is reached. If unset, the value "
        "of HTTPS_PROXY is used.",
    )
    no_proxy: str | None = Field(
        None,
        description="The hosts that are reached without the egress proxy, comma-separated. If unset, the "
        "value of NO_PROXY is used.",
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
    socket_mode: Mode = Field(0o600, description="The permissions of Unix sockets, in octal.")
    admin_listen: Addresses = Field(
        (TcpAddress("127.0.0.1", 9090),),
        description="The addresses of the probes, the metrics and the status, written as in BITS_LISTEN.",
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        "info", description="The lowest level that is logged."
    )
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
    client_authorization: Literal["replace", "keep", "reject"] = Field(
        "replace", description="What happens to an Authorization field that the client sends."
    )
    forwarded_headers: bool = Field(
        default=False, description="Whether the proxy tells the API about the client (X-Forwarded-For)."
    )
    allow: Rules = Field(
        (),
        description="The calls that are allowed, as METHOD /path with * for any text, comma-separated. If "
        "unset, all calls are allowed.",
    )
    safe_operations: Texts = Field(
        ("*.get", "*.list"),
        description="The operations that change nothing and may be sent again, comma-separated.",
    )
    allowed_hosts: Texts | None = Field(
        None,
        description="The host names by which clients may call the proxy, comma-separated. If unset, "
        "loopback addresses accept only loopback names, and all other addresses accept any name.",
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
        description="Whether other processes of the same user may read the proxy's memory and environment.",
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
        """Return the URL of the proxy through which `url` is reached, None for directly."""
        if self.https_proxy is None or not url.startswith("https:"):
            return None
        if is_exempt(urlsplit(url).hostname or "", self.no_proxy or ""):
            return None
        return self.https_proxy.get_secret_value()

    @classmethod
    def settings_customise_sources(  # noqa: D102 - as in pydantic-settings
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        *others: PydanticBaseSettingsSource,  # noqa: ARG003
        **more: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # What `bits_auth_proxy.settings.loading` puts together, nothing else.
        return (init_settings,)


class FieldInfo(NamedTuple):
    """A setting by its dotted name, e.g. `upstream.ca_file`, and the model's field behind it."""

    name: str
    info: Any

    @property
    def variable(self) -> str:
        """The environment variable."""
        return PREFIX + self.name.replace(".", "__").upper()

    @property
    def secret(self) -> bool:
        """Whether the value must never show."""
        return "SecretStr" in str(self.info.annotation)


def fields() -> Iterator[FieldInfo]:
    """Yield all settings in the order of their definition."""
    for name, info in Settings.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, _Group):
            for inner, inner_info in annotation.model_fields.items():
                yield FieldInfo(f"{name}.{inner}", inner_info)
        else:
            yield FieldInfo(name, info)


def is_loopback_url(url: str) -> bool:
    """Tell whether `url` leads to this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_exempt(host: str, no_proxy: str) -> bool:
    """Tell whether `no_proxy` names `host`: itself, a domain above it, a network around it, or all by `*`."""
    for entry in filter(None, (part.strip().lower() for part in no_proxy.split(","))):
        if entry == "*" or host == entry.lstrip(".") or host.endswith("." + entry.lstrip(".")):
            return True
        try:
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:
            continue
    return False


def environment() -> Mapping[str, str]:
    """Return the process's environment."""
    return os.environ
