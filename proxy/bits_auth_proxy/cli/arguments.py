"""The options that stand for settings: the flags, and the settings that result from them."""

import argparse
from collections.abc import Sequence

from bits_auth_proxy.cli.exit_codes import USAGE, CommandError
from bits_auth_proxy.settings import reference
from bits_auth_proxy.settings.loading import Loaded, SettingsError, load


def parse_settings(
    parser: argparse.ArgumentParser,
    options: Sequence[str],
    *,
    credentials_required: bool,
    credentials_awaited: bool = False,
) -> Loaded:
    """Return the settings of a command that has no other options. Raises CommandError.

    A command that calls the API requires credentials; the others bring an API of their own.
    """
    add_settings_flags(parser)
    return load_settings(
        parser.parse_args(options),
        credentials_required=credentials_required,
        credentials_awaited=credentials_awaited,
        calls_api=credentials_required,
    )


def add_settings_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--config` and a flag for each setting that is not a secret."""
    # An abbreviation that is unique today would become ambiguous with the next setting.
    parser.allow_abbrev = False
    parser.add_argument("--config", metavar="FILE", help="TOML file with settings (BITS_CONFIG)")
    for field in reference.fields():
        if field.flag is not None:
            parser.add_argument(
                field.flag,
                dest=field.name,
                metavar=field.kind.upper(),
                help=f"{field.description} ({field.variable})".replace("%", "%%"),
            )


def load_settings(
    arguments: argparse.Namespace,
    *,
    credentials_required: bool,
    credentials_awaited: bool = False,
    calls_api: bool = True,
) -> Loaded:
    """Return the settings from all sources; `arguments` are those of a parser with our flags.

    Raises CommandError, which lists all that is wrong with the settings.
    """
    names = {field.name for field in reference.fields()}
    flags = {name: value for name, value in vars(arguments).items() if name in names and value is not None}
    try:
        return load(
            flags=flags,
            config_file=arguments.config,
            credentials_required=credentials_required,
            credentials_awaited=credentials_awaited,
            calls_api=calls_api,
        )
    except SettingsError as error:
        count = len(error.faults)
        text = "\n  ".join([f"{count} setting{'s' * (count != 1)} must be changed:", *error.faults])
        if error.warnings:
            text += "\n  ".join(["\nThis may be a slip:", *error.warnings])
        raise CommandError(text, exit_code=USAGE) from None
