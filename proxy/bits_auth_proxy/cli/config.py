"""`bits-auth-proxy config`: the settings in effect and their origins, or the reference of all settings."""

import argparse
from collections.abc import Sequence

from bits_auth_proxy.cli.arguments import add_settings_flags, load_settings
from bits_auth_proxy.cli.output import print_text
from bits_auth_proxy.settings import reference


def execute(parser: argparse.ArgumentParser, options: Sequence[str]) -> bool:
    """Print what the options ask for; return True. Raises CommandError."""
    add_settings_flags(parser)
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--schema", action="store_true", help="print the JSON schema of the TOML file")
    forms.add_argument("--env", action="store_true", help="print a .env file that explains every setting")
    arguments = parser.parse_args(options)
    if arguments.schema:
        print_text(reference.as_json_schema())
    elif arguments.env:
        print_text(reference.as_env())
    else:
        loaded = load_settings(arguments, credentials_required=False)
        print_text(as_table(reference.effective(loaded)))
    return True


def as_table(rows: Sequence[tuple[str, str, str]]) -> str:
    """Return a line for each variable, value and origin."""
    width = max(len(variable) for variable, _, _ in rows)
    return "\n".join(
        f"{variable:<{width}}  {value or '(unset)'}  ({origin})" for variable, value, origin in rows
    )
