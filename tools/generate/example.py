"""The example of a settings file: every setting with its description and its default, commented out."""

import json
import textwrap
from collections.abc import Iterable
from typing import Any, Final

from pydantic import SecretStr

from bits_auth_proxy.settings.fields import SettingField
from bits_auth_proxy.settings.fields import fields as setting_fields
from bits_auth_proxy.settings.model import Settings
from bits_auth_proxy.settings.reference import FieldReference
from bits_auth_proxy.settings.reference import fields as described_fields

_HEAD: Final = """\
#:schema ./bits-auth-proxy.schema.json

# Settings of bits-auth-proxy. Copy this file, change it, and name it on the command line:
#
#   bits-auth-proxy run --config bits-auth-proxy.toml
#
# Environment variables and flags override what is set here. Each setting is shown with its default; remove
# the # in front of it to change it. A setting without a default shows in angle brackets what to write.
"""
_COMMON: Final = "credentials_dir", "api_url", "scope", "allow", "listen", "admin_listen", "access_log"
"""The settings at the top of the file."""
_SET: Final = {"credentials_dir": "/run/secrets/bits"}
"""The settings that the file sets; without credentials the proxy does not start."""
_WIDTH: Final = 110


def as_toml() -> str:
    """Return the whole file."""
    described = {field.name: field for field in described_fields()}
    known = {field.name: field for field in setting_fields()}
    blocks = [_HEAD, _heading("The settings that most deployments look at")]
    blocks += _entries((known[name] for name in _COMMON), described)
    blocks.append(_heading("All other settings"))
    blocks += _entries((known[name] for name in known if "." not in name and name not in _COMMON), described)
    for group in dict.fromkeys(name.partition(".")[0] for name in known if "." in name):
        title, *_ = f"{Settings.model_fields[group].annotation.__doc__}".splitlines()
        blocks.append(_heading(title.rstrip(".")))
        blocks.append(f"[{group}]\n")
        members = (known[name] for name in known if name.startswith(f"{group}."))
        blocks += _entries(members, described)
    return "\n".join(blocks)


def _heading(title: str) -> str:
    return f"\n# --- {title} ---\n"


def _entries(fields: Iterable[SettingField], described: dict[str, FieldReference]) -> list[str]:
    return [_entry(field, described[field.name]) for field in fields]


def _entry(field: SettingField, described: FieldReference) -> str:
    comment = textwrap.fill(
        f"{described.description.rstrip('.')}.",
        width=_WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_on_hyphens=False,
    )
    key = field.name.rpartition(".")[2]
    if field.name in _SET:
        return f"{comment}\n{key} = {json.dumps(_SET[field.name])}\n"
    return f"{comment}\n#{key} = {_default(field, described)}\n"


def _default(field: SettingField, described: FieldReference) -> str:
    """Return the default as TOML writes it, which for these types is how JSON does."""
    default: Any = field.info.default
    if default is None:
        return "<number>" if described.kind == "number" else f'"<{described.kind}>"'
    if field.name == "socket_mode" or isinstance(default, SecretStr):
        return json.dumps(described.default)
    if isinstance(default, tuple) and not hasattr(default, "_fields"):
        return json.dumps([str(each) for each in default])
    return json.dumps(default if isinstance(default, bool | int | float | str) else str(default))
