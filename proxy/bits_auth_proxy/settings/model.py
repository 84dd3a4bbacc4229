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
        raise ValueError("a mode is between 0 and 777")
    return value


def _origin(value: Any) -> Any:
    if isinstance(value, str):
        parts = _url_parts(value)
        if parts.path not in ("", "/") or parts.query:
            raise ValueError("write scheme and host alone, the paths are the API's")
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
        raise ValueError("a URL without user information, fragment and spaces is needed")
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
            raise ValueError(f"{rule!r} is no rule: write METHOD /path, * stands for any text")
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


class ListenTlsSettings(_Group):
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


class LimitSettings(_Group):
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


class EmulatorSettings(_Group):
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


class Settings(BaseSettings):
    """All settings. Unknown keys are faults; secrets are masked wherever this is shown."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, env_prefix=PREFIX, env_nested_delimiter="__"
    )

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
    api_url: Annotated[str, BeforeValidator(_origin)] = Field(
        DEFAULT_API, description="Origin of the Bits API"
    )
    token_url: Annotated[str | None, BeforeValidator(_url)] = Field(
        None, description="The token endpoint; unset: /v1/oauth2/token at the API"
    )
    https_proxy: Annotated[SecretStr | None, BeforeValidator(_proxy)] = Field(
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
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        "info", description="The least level that is logged"
    )
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
        """Where a token's owner is told; outside of /v1, as documented."""
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
