"""Puts the settings together from their sources, and finds all that is wrong with them."""

import difflib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from io import StringIO
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from dotenv.parser import parse_stream
from pydantic import ValidationError

from bits_auth_proxy.settings.addresses import is_loopback
from bits_auth_proxy.settings.model import PREFIX, Settings, environment, fields, is_loopback_url
from bits_auth_proxy.settings.permissions import readable_by_others

CONFIG_VARIABLE: Final = "BITS_CONFIG"
_TOML_TABLE: Final = re.compile(r"\s*\[\s*(\w+)\s*\]")
_TOML_KEY: Final = re.compile(r"\s*(\w+(?:\.\w+)?)\s*=")
_SERVICE_LINK: Final = re.compile(
    r"BITS_.*(_SERVICE_HOST|_SERVICE_PORT(_[A-Z0-9_]+)?|_PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)\Z"
)
"""What Kubernetes puts into every container for a Service whose name begins with `bits-`."""

# Of each pair of settings only one may be given.
_EXCLUSIVE: Final = (
    ("client_id", "client_id_file"),
    ("client_secret", "client_secret_file"),
    ("credentials_dir", "client_id"),
    ("credentials_dir", "client_secret"),
    ("credentials_dir", "client_id_file"),
    ("credentials_dir", "client_secret_file"),
)
# Settings that are of no use without another.
_DEPENDENT: Final = (
    ("upstream.client_key", "upstream.client_cert"),
    ("listen_tls.cert", "listen_tls.key"),
    ("listen_tls.key", "listen_tls.cert"),
    ("listen_tls.client_ca", "listen_tls.cert"),
)
_FILES: Final = (
    "client_id_file",
    "client_secret_file",
    "listen_tls.cert",
    "listen_tls.key",
    "listen_tls.client_ca",
    "upstream.ca_file",
    "upstream.client_cert",
    "upstream.client_key",
)
_WORDINGS: Final = {
    "bool_parsing": "write true or false",
    "bool_type": "write true or false",
    "float_parsing": "write a number",
    "float_type": "write a number",
    "int_from_float": "write a whole number",
    "int_parsing": "write a whole number",
    "int_type": "write a whole number",
    "path_type": "write a path",
    "string_type": "write text",
}
"""What to say of a value that does not fit, by pydantic's type of error."""


_Disagreement: TypeAlias = tuple[tuple[str, ...], str]


class SettingsError(Exception):
    """The settings can't be used. `faults` names all that is to be changed; no secret is in it."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults: Final = faults


class Loaded(NamedTuple):
    """The settings, where each came from (by dotted name; missing: default), and what looks like a slip.

    `exposed` are files with a secret in them that any user of this machine may read.
    """

    settings: Settings
    origins: Mapping[str, str]
    warnings: tuple[str, ...]
    exposed: tuple[Path, ...]


class _Given(NamedTuple):
    value: Any
    origin: str


def load(
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
    config_file: str | None = None,
    env_file: Path | None = Path(".env"),
    credentials_required: bool,
) -> Loaded:
    """Return the settings of TOML file < .env < environment < flags. Raises SettingsError.

    `flags` maps dotted names to text; `config_file` is else named by BITS_CONFIG; `environ` is else the
    process's. Empty variables count as not set.
    """
    faults: list[str] = []
    environ = environment() if environ is None else environ
    dotenv, dotenv_lines = _read_env_file(env_file, faults)
    toml_path = config_file or environ.get(CONFIG_VARIABLE) or dotenv.get(CONFIG_VARIABLE)
    given = _from_customary(environ)
    given |= _from_toml(toml_path, faults) if toml_path else {}
    given |= _from_variables(dotenv, lambda variable: f".env line {dotenv_lines[variable]}")
    given |= _from_variables(environ, lambda variable: f"environment {variable}")
    for name, value in (flags or {}).items():
        given[name] = _Given(value, f"flag {flag_of(name)}")
    settings, faulty = _validate(given, faults)
    for names, fault in _disagreements(settings, credentials_required=credentials_required):
        if not faulty.intersection(names):
            faults.append(fault)
    if faults:
        raise SettingsError(faults)
    warnings = (*_unknown(environ, "the environment"), *_unknown(dotenv, ".env"))
    origins = {name: each.origin for name, each in given.items()}
    secret_from = origins.get("client_secret", "")
    holders = (
        env_file if secret_from.startswith(".env") else None,
        Path(toml_path) if toml_path and secret_from.startswith("file") else None,
        settings.upstream.client_key or settings.upstream.client_cert,
    )
    exposed = tuple(path for path in holders if path is not None and readable_by_others(path))
    return Loaded(settings, origins, warnings, exposed)


def variable_of(name: str) -> str:
    """Return the environment variable of a dotted name."""
    return PREFIX + name.replace(".", "__").upper()


def flag_of(name: str) -> str:
    """Return the command line flag of a dotted name."""
    return "--" + name.replace(".", "-").replace("_", "-")


# The sources.


def _read_env_file(path: Path | None, faults: list[str]) -> tuple[dict[str, str], dict[str, int]]:
    """Return what the file sets, and where: the last line counts."""
    if path is None or not path.exists():
        return {}, {}
    try:
        bindings = list(parse_stream(StringIO(path.read_text("utf-8"))))
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{path}: can't be read: {_why(error)}")
        return {}, {}
    faults += [f"{path}: line {each.original.line} is not NAME=value" for each in bindings if each.error]
    named = [
        (each.key, each.value, each.original) for each in bindings if each.key and each.value is not None
    ]
    # A binding begins with the empty lines before it.
    lines = {key: original.line + _blank_lines(original.string) for key, _, original in named}
    return {key: value for key, value, _ in named}, lines


def _blank_lines(text: str) -> int:
    return text[: len(text) - len(text.lstrip())].count("\n")


def _from_variables(variables: Mapping[str, str], origin: Callable[[str], str]) -> dict[str, _Given]:
    given = {}
    for field in fields():
        value = variables.get(field.variable)
        if value:
            given[field.name] = _Given(value, origin(field.variable))
    return given


def _from_customary(environ: Mapping[str, str]) -> dict[str, _Given]:
    """Take what all programs of a machine are told; our own variables say it better."""
    given = {}
    for name in ("https_proxy", "no_proxy"):
        for variable in (name.upper(), name):
            if environ.get(variable):
                given[name] = _Given(environ[variable], f"environment {variable}")
    return given


def _from_toml(path: str, faults: list[str]) -> dict[str, _Given]:
    try:
        text = Path(path).read_text("utf-8")
        document = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{CONFIG_VARIABLE}: {path} can't be read: {_why(error)}")
        return {}
    except tomllib.TOMLDecodeError as error:
        # The message quotes nothing of the file but the place.
        faults.append(f"{CONFIG_VARIABLE}: {path} is not TOML: {error}")
        return {}
    known = {field.name for field in fields()}
    groups = {name.partition(".")[0] for name in known if "." in name}
    lines = _toml_lines(text)
    given = {}
    for name, value in _flattened(document, groups):
        place = f"{path} line {lines[name]}" if name in lines else path
        if name in known:
            given[name] = _Given(value, f"file {place}")
        elif name in groups:
            faults.append(f"{place}: {name} is a table: write [{name}] with its settings below it")
        else:
            faults.append(f"{place}: there is no setting {name!r}{_nearest(name, known)}")
    return given


def _toml_lines(text: str) -> dict[str, int]:
    """Return where settings stand, as far as one key a line goes: tomllib does not tell."""
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _TOML_TABLE.match(line):
            table = f"{header[1]}."
        elif key := _TOML_KEY.match(line):
            lines.setdefault(table + key[1], number)
    return lines


def _flattened(document: Mapping[str, Any], groups: set[str]) -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if name in groups and isinstance(value, dict):
            yield from ((f"{name}.{inner}", each) for inner, each in value.items())
        else:
            yield name, value


def _unknown(variables: Mapping[str, str], where: str) -> Iterator[str]:
    known = {field.variable for field in fields()} | {CONFIG_VARIABLE}
    for name in sorted(variables):
        if name.startswith(PREFIX) and name not in known and not _SERVICE_LINK.match(name):
            yield f"{name} in {where} is not a setting{_nearest(name, known)}"


def _nearest(name: str, known: set[str]) -> str:
    matches = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


def _why(error: Exception) -> str:
    return error.strerror or "unreadable" if isinstance(error, OSError) else "it is not UTF-8"


# What can be wrong.


def _validate(given: Mapping[str, _Given], faults: list[str]) -> tuple[Settings, set[str]]:
    """Return the settings without the faulty ones, and the names of these."""
    try:
        return Settings(**_nested(given)), set()
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
    faulty = set()
    for problem in problems:
        name = ".".join(part for part in problem["loc"] if isinstance(part, str) and part.isidentifier())
        name = next(each for each in given if name == each or name.startswith(f"{each}."))
        if name not in faulty:
            faulty.add(name)
            text = _WORDINGS.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
            text = text.replace("Input should be", "must be")
            origin = given[name].origin
            own = f"environment {variable_of(name)}"
            place = "" if origin == own else f" ({origin})"
            faults.append(f"{variable_of(name)}: {text[:1].lower()}{text[1:]}{place}")
    sound = {name: each for name, each in given.items() if name not in faulty}
    return Settings(**_nested(sound)), faulty


def _nested(given: Mapping[str, _Given]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, each in given.items():
        group, _, inner = name.rpartition(".")
        (nested.setdefault(group, {}) if group else nested)[inner] = each.value
    return nested


def _disagreements(settings: Settings, *, credentials_required: bool) -> Iterator[_Disagreement]:
    """Yield faults that settings have together or with the file system, each with their names."""
    yield from _contradictions(settings)
    yield from _exposed_inspection(settings)
    if credentials_required and settings.credentials_dir is None:
        yield from _missing_credentials(settings)
    yield from _unprintable_credentials(settings)
    yield from _missing_files(settings)
    yield from _readable_secrets(settings)


def _contradictions(settings: Settings) -> Iterator[_Disagreement]:
    for one, other in _EXCLUSIVE:
        if getattr(settings, one) is not None and getattr(settings, other) is not None:
            yield (one, other), f"{variable_of(one)}: set either this or {variable_of(other)}, not both"
    for one, other in _DEPENDENT:
        if attrgetter(one)(settings) is not None and attrgetter(other)(settings) is None:
            yield (one, other), f"{variable_of(one)}: has no effect without {variable_of(other)}"


def _exposed_inspection(settings: Settings) -> Iterator[_Disagreement]:
    if settings.inspect:
        for name in ("listen", "admin_listen"):
            for address in getattr(settings, name) or ():
                if not is_loopback(address):
                    text = f"use loopback: BITS_INSPECT=true keeps requests, and others can reach {address}"
                    yield (name, "inspect"), f"{variable_of(name)}: {text}"


def _missing_credentials(settings: Settings) -> Iterator[_Disagreement]:
    for name in ("client_id", "client_secret"):
        file = f"{name}_file"
        if getattr(settings, name) is None and getattr(settings, file) is None:
            text = f"{variable_of(name)}: is missing; set it, {variable_of(file)} or BITS_CREDENTIALS_DIR"
            yield (name, file, "credentials_dir"), text


def _unprintable_credentials(settings: Settings) -> Iterator[_Disagreement]:
    secret = settings.client_secret
    given = {
        "client_id": settings.client_id,
        "client_secret": None if secret is None else secret.get_secret_value(),
    }
    for name, value in given.items():
        if value is not None and not value.isprintable():
            yield (name,), f"{variable_of(name)}: contains a line break or another control character"


def _missing_files(settings: Settings) -> Iterator[_Disagreement]:
    for name in _FILES:
        path = attrgetter(name)(settings)
        if path is not None and not path.is_file():
            yield (name,), f"{variable_of(name)}: there is no file {path}"
    directory = settings.credentials_dir
    if directory is not None and not directory.is_dir():
        yield ("credentials_dir",), f"BITS_CREDENTIALS_DIR: there is no directory {directory}"


def _readable_secrets(settings: Settings) -> Iterator[_Disagreement]:
    for name in ("api_url", "token_url"):
        url = getattr(settings, name) or ""
        if url.startswith("http:") and not is_loopback_url(url) and not settings.allow_insecure_http:
            text = f"{variable_of(name)}: plain http to another machine exposes the secret; use https"
            yield (name, "allow_insecure_http"), f"{text}, or set BITS_ALLOW_INSECURE_HTTP=true"
