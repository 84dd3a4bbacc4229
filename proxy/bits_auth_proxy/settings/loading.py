"""Puts the settings together from their sources, and reports everything that is wrong with them at once.

Later sources win: HTTPS_PROXY and NO_PROXY < TOML file < .env < environment < flags.
"""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from bits_auth_proxy.errors import SettingError
from bits_auth_proxy.settings import sources
from bits_auth_proxy.settings.checks import Disagreement, disagreements, needs_egress_proxy
from bits_auth_proxy.settings.egress import parse_proxy
from bits_auth_proxy.settings.fields import fields, flag_of, variable_of
from bits_auth_proxy.settings.model import Settings
from bits_auth_proxy.settings.permissions import readable_by_others
from bits_auth_proxy.settings.provenance import diversions
from bits_auth_proxy.settings.sources import CONFIG_VARIABLE, Given

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
"""What to say about a value that does not fit, by pydantic's type of error."""


class SettingsError(SettingError):
    """The settings can't be used. `faults` lists everything that must change, without any secret.

    `warnings` are those of `Loaded`.
    """

    def __init__(self, faults: list[str], warnings: tuple[str, ...] = ()) -> None:
        super().__init__("; ".join(faults))
        self.faults: Final = faults
        self.warnings: Final = warnings


class Loaded(NamedTuple):
    """The settings, and what there is to say about them."""

    settings: Settings
    origins: Mapping[str, str]
    """Where each setting comes from, by dotted name; a setting that is not here has its default."""
    warnings: tuple[str, ...]
    """Variables that look like slips."""
    exposed: tuple[Path, ...]
    """Files with a secret that every user of this machine may read."""


def load(
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
    config_file: str | None = None,
    env_file: Path | None = Path(".env"),
    credentials_required: bool,
    credentials_awaited: bool = False,
    calls_api: bool = True,
) -> Loaded:
    """Return the settings of all sources. Raises SettingsError.

    `environ` is the process's environment by default; `flags` maps dotted names to text. Without
    `config_file`, BITS_CONFIG names the TOML file. Empty variables count as unset.
    With `credentials_awaited`, credential files that are not there yet are no fault. With `calls_api`, the
    HTTPS_PROXY that leads to the API must be one that we can use, and `.env` must not lead credentials away.
    """
    faults: list[str] = []
    environ = sources.environment() if environ is None else environ
    lines = sources.read_env_file(env_file, faults)
    toml_path = config_file or environ.get(CONFIG_VARIABLE)
    toml_named = bool(toml_path)
    if not toml_path and CONFIG_VARIABLE in lines:
        toml_path = lines[CONFIG_VARIABLE].value
    customary, unusable = _usable(sources.from_customary(environ))
    in_toml = sources.from_toml(toml_path, faults, named=toml_named) if toml_path else {}
    in_env_file = sources.from_env_file(env_file, lines)
    given = {
        **customary,
        **in_toml,
        **in_env_file,
        **sources.from_environment(environ),
        **{name: Given(value, f"flag {flag_of(name)}") for name, value in (flags or {}).items()},
    }
    settings, faulty = _validate(given, faults)
    found = disagreements(
        settings, credentials_required=credentials_required, credentials_awaited=credentials_awaited
    )
    if calls_api and env_file is not None:
        found = chain(found, diversions(given, settings, env_file.parent))
    for names, fault in found:
        if not faulty.intersection(names):
            faults.append(fault)
    if calls_api and unusable is not None and "https_proxy" not in given:
        names, fault = unusable
        if not faulty.intersection(names) and needs_egress_proxy(settings):
            faults.append(fault)
    warnings = (
        *sources.unknown_variables(environ, "the environment"),
        *sources.unknown_variables(lines, ".env"),
    )
    if faults:
        raise SettingsError(faults, warnings)
    origins = {name: each.origin for name, each in given.items()}
    holders = (
        env_file if _hold_secret(in_env_file) else None,
        Path(toml_path) if toml_path and _hold_secret(in_toml) else None,
        settings.upstream.client_key or settings.upstream.client_cert,
        settings.listen_tls.key,
    )
    return Loaded(
        settings=settings,
        origins=origins,
        warnings=warnings,
        exposed=tuple(path for path in holders if path is not None and readable_by_others(path)),
    )


def _usable(customary: Mapping[str, Given]) -> tuple[Mapping[str, Given], Disagreement | None]:
    """Return what many programs share without an egress proxy that can't be used, and what is wrong with it.

    Other programs may be able to use it, so it is a fault only where we would have to.
    """
    proxy = customary.get("https_proxy")
    if proxy is None:
        return customary, None
    try:
        parse_proxy(proxy.value)
    except ValueError as error:
        variable = proxy.origin.removeprefix("environment ")
        text = f"{variable}: {error}, or exempt the API with NO_PROXY"
        rest = {name: each for name, each in customary.items() if name != "https_proxy"}
        return rest, Disagreement(("api_url", "token_url", "no_proxy"), text)
    return customary, None


def _hold_secret(given: Mapping[str, Given]) -> bool:
    """Return whether one of the values is a secret. The URL of an egress proxy is one with a password."""
    secrets = (given[field.name] for field in fields() if field.secret and field.name in given)
    return any(each.value for each in secrets if "://" not in str(each.value) or "@" in str(each.value))


def _validate(given: Mapping[str, Given], faults: list[str]) -> tuple[Settings, set[str]]:
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
            place = "" if origin == f"environment {variable_of(name)}" else f" ({origin})"
            faults.append(f"{variable_of(name)}: {text[:1].lower()}{text[1:]}{place}")
    sound = {name: each for name, each in given.items() if name not in faulty}
    return Settings(**_nested(sound)), faulty


def _nested(given: Mapping[str, Given]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, each in given.items():
        group, _, inner = name.rpartition(".")
        (nested.setdefault(group, {}) if group else nested)[inner] = each.value
    return nested
