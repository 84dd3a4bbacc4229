"""The settings for people and editors: flags, a commented .env, a JSON schema, a table, effective values."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin

from pydantic import SecretStr

from bits_auth_proxy.settings.disclosure import MASK, masked_query, unlikely_words
from bits_auth_proxy.settings.fields import SettingField, flag_of
from bits_auth_proxy.settings.fields import fields as setting_fields
from bits_auth_proxy.settings.loading import Loaded
from bits_auth_proxy.settings.model import Settings

_MIN_LENGTH: Final = 4
"""Shorter secrets are not masked in other settings: ordinary words contain them."""
_KINDS: Final = (
    ("bool", "true|false"),
    ("Address", "address"),
    ("Literal", "word"),
    ("tuple", "list"),
    ("Path", "file"),
    ("int", "number"),
    ("float", "seconds"),
)


class FieldReference(NamedTuple):
    """A setting as people see it. Secrets have no flag, because others can read a process's command line."""

    name: str
    variable: str
    flag: str | None
    kind: str
    default: str
    description: str


class EffectiveSetting(NamedTuple):
    """A setting's value as text, empty if unset and masked if secret, and where it comes from."""

    variable: str
    value: str
    origin: str


def fields() -> list[FieldReference]:
    """Return all settings in the order of their definition."""
    return [
        FieldReference(
            name=field.name,
            variable=field.variable,
            flag=None if field.secret else flag_of(field.name),
            kind=_kind(field),
            default=_default(field),
            description=_description(field),
        )
        for field in setting_fields()
    ]


def effective(loaded: Loaded, *, only: Collection[str] | None = None) -> list[EffectiveSetting]:
    """Return every setting, or those whose dotted names are in `only`."""
    rows = []
    secret = "" if loaded.settings.client_secret is None else loaded.settings.client_secret.get_secret_value()
    for field in setting_fields():
        if only is not None and field.name not in only:
            continue
        value: Any = loaded.settings
        for part in field.name.split("."):
            value = getattr(value, part)
        origin = loaded.origins.get(field.name, "default")
        text = _text(value, field.name)
        if len(secret) >= _MIN_LENGTH:
            # It may be in a second place, by mistake.
            text = text.replace(secret, MASK)
        rows.append(EffectiveSetting(field.variable, text, origin))
    return rows


def as_env() -> str:
    """Return a .env file that names every setting with its default, commented out."""
    text = "# Settings of bits-auth-proxy. To set one, remove the # in front of its variable.\n"
    group = ""
    for field in fields():
        own = field.name.rpartition(".")[0]
        if own != group:
            group = own
            text += f"\n\n# {_group(own).__doc__}\n"
        text += f"\n# {field.description}\n#{field.variable}={field.default}\n"
    return text.rstrip("\n")


def as_json_schema() -> str:
    """Return the JSON schema of the TOML file, for editors."""
    schema = Settings.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "bits-auth-proxy settings"
    for field in setting_fields():
        group, _, name = field.name.rpartition(".")
        member = (schema["$defs"][_group(group).__name__] if group else schema)["properties"][name]
        # Editors show the title beside the description; they know the name already.
        member["title"] = field.variable
        if isinstance(field.info.default, SecretStr):
            del member["default"]
        elif isinstance(field.info.default, tuple):  # lists and addresses, as people write them
            member["default"] = _text(field.info.default, field.name)
    return json.dumps(schema, indent=2)


def _group(name: str) -> Any:
    """Return the model of a group of settings."""
    return Settings.model_fields[name].annotation


def as_markdown_table() -> str:
    """Return a table for the documentation."""
    rows = ["| variable | default | description |", "| --- | --- | --- |"]
    rows += [
        f"| `{field.variable}` | {f'`{field.default}`' if field.default else ''} | {field.description} |"
        for field in fields()
    ]
    return "\n".join(rows)


def _default(field: SettingField) -> str:
    default = field.info.default
    # A default is public anyway.
    return default.get_secret_value() if isinstance(default, SecretStr) else _text(default, field.name)


def _description(field: SettingField) -> str:
    words = [each for part in _parts(field.info.annotation) for each in get_args(part)]
    choices = ", ".join(each for each in words if isinstance(each, str))
    return f"{field.info.description} One of {choices}." if choices else str(field.info.description)


def _parts(annotation: Any) -> list[Any]:
    """Return the Literals of a type, which may be one or a union that contains one."""
    return [each for each in (annotation, *get_args(annotation)) if get_origin(each) is Literal]


def _kind(field: SettingField) -> str:
    annotation = str(field.info.annotation) + str(field.info.metadata)
    if "Path" in annotation and field.name.endswith("_dir"):
        return "directory"
    return next((kind for sign, kind in _KINDS if sign in annotation), "text")


def _text(value: Any, name: str) -> str:
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, bool):
        return str(value).lower()
    if name == "scope":
        return MASK if unlikely_words(value) else str(value)
    if name == "token_url":
        return masked_query(value)
    if name == "socket_mode":
        return f"{value:o}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return ",".join(map(str, value))
    return str(value) if isinstance(value, str | int | Path | tuple) else repr(value)
