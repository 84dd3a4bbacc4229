"""Whether `.env` leads credentials elsewhere that it did not supply.

The proxy reads `.env` in whatever directory it is started, and a stranger may have written it. So what
supplies the secret decides where it goes.
"""

from collections.abc import Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Final

from bits_auth_proxy.settings.checks import Disagreement
from bits_auth_proxy.settings.fields import variable_of
from bits_auth_proxy.settings.model import Settings
from bits_auth_proxy.settings.sources import Given

_SECRETS: Final = ("client_secret", "client_secret_file", "credentials_dir")
_DESTINATIONS: Final = ("api_url", "token_url", "https_proxy", "upstream.ca_file", "allow_insecure_http")
"""The settings that decide where the secret and the tokens go, and who can read them on the way."""


def diversions(given: Mapping[str, Given], settings: Settings, directory: Path) -> Iterator[Disagreement]:
    """Yield a fault for each destination that `.env`, in `directory`, sets for credentials from elsewhere."""
    supplier = next((name for name in _SECRETS if name in given), None)
    if supplier is None:
        return
    holder, remedy = given[supplier].found_in, f"set {variable_of(supplier)} in .env, too"
    if holder is not None and supplier != "client_secret":
        holder = attrgetter(supplier)(settings)
        remedy = f"move the file that {variable_of(supplier)} names into the directory of .env"
    if holder is not None and holder.resolve().is_relative_to(directory.resolve()):
        return
    defaults = Settings()
    for name in _DESTINATIONS:
        each, value = given.get(name), attrgetter(name)
        if each is not None and each.found_in not in (None, holder) and value(settings) != value(defaults):
            text = f"{variable_of(name)}: .env must not decide where credentials go that come from elsewhere"
            text += f"; set this in the environment, or {remedy} ({each.origin})"
            yield Disagreement((name, supplier), text)
