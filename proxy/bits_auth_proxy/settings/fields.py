"""The settings by name: each one's dotted name, environment variable and flag."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from pydantic.fields import FieldInfo

from bits_auth_proxy.settings.model import Group, Settings

PREFIX: Final = "BITS_"


class SettingField(NamedTuple):
    """A setting by its dotted name, e.g. `upstream.ca_file`, and the model's field behind it."""

    name: str
    info: FieldInfo

    @property
    def variable(self) -> str:
        """The environment variable."""
        return variable_of(self.name)

    @property
    def secret(self) -> bool:
        """Whether the value must never be shown."""
        return "SecretStr" in str(self.info.annotation)


def fields() -> Iterator[SettingField]:
    """Yield all settings in the order of their definition."""
    for name, info in Settings.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, Group):
            for inner, inner_info in annotation.model_fields.items():
                yield SettingField(f"{name}.{inner}", inner_info)
        else:
            yield SettingField(name, info)


def variable_of(name: str) -> str:
    """Return the environment variable of a dotted name."""
    return PREFIX + name.replace(".", "__").upper()


def flag_of(name: str) -> str:
    """Return the command line flag of a dotted name."""
    return "--" + name.replace(".", "-").replace("_", "-")
