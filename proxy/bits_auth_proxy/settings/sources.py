"""Reads the settings' sources: the TOML file, `.env` and the environment, whose only reader this is.

Each source gives values by dotted name, and tells where each value stands. What is wrong with a source is
added to a list of faults, so that the operator sees all faults at once.
"""

import difflib
import errno
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any, Final, NamedTuple

from dotenv.parser import parse_stream

from bits_auth_proxy.files import is_utf16
from bits_auth_proxy.settings.disclosure import shown_name, shown_path
from bits_auth_proxy.settings.fields import PREFIX, fields

CONFIG_VARIABLE: Final = "BITS_CONFIG"
_CUSTOMARY: Final = ("https_proxy", "no_proxy")
"""Settings that have a variable which many programs share, in capitals or not."""
_TOML_TABLE: Final = re.compile(r"\s*\[\s*(\w+)\s*\]")
_TOML_PLACE: Final = re.compile(r"\(at [^()]*\)\Z")
_TOML_KEY: Final = re.compile(r"\s*(\w+(?:\.\w+)?)\s*=")
_SERVICE_LINK: Final = re.compile(
    r"BITS_.*(_SERVICE_HOST|_SERVICE_PORT(_[A-Z0-9_]+)?|_PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)\Z"
)
"""What Kubernetes puts into every container for a Service whose name begins with `bits-`."""


class Given(NamedTuple):
    """A value as a source gives it, and where it stands there, for people."""

    value: Any
    origin: str
    found_in: Path | None = None
    """The file that gives it, if nobody has named that one: `.env`, or a file that only `.env` names."""


class Line(NamedTuple):
    """A variable's value in a `.env` file, and the number of its line."""

    value: str
    number: int


def environment() -> Mapping[str, str]:
    """Return the process's environment."""
    return os.environ


def from_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    """Return the settings that the environment gives. An empty variable counts as unset."""
    return _from_variables(environ, lambda variable: f"environment {variable}")


def from_customary(environ: Mapping[str, str]) -> dict[str, Given]:
    """Return the settings that HTTPS_PROXY and NO_PROXY give; our own variables take precedence."""
    given = {}
    for name in _CUSTOMARY:
        for variable in (name.upper(), name):
            if environ.get(variable):
                given[name] = Given(environ[variable], f"environment {variable}")
    return given


def read_env_file(path: Path | None, faults: list[str]) -> dict[str, Line]:
    """Return what a `.env` file sets by variable; of a variable's lines, the last counts."""
    if path is None or not path.exists():
        return {}
    try:
        bindings = list(parse_stream(StringIO(_text_of(path))))
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{path}: can't be read: {_reason(error)}")
        return {}
    faults += [f"{path}: line {each.original.line} is not NAME=value" for each in bindings if each.error]
    return {
        # A binding begins with the empty lines before it.
        each.key: Line(each.value, each.original.line + _blank_lines(each.original.string))
        for each in bindings
        if each.key and each.value is not None
    }


def from_env_file(path: Path | None, lines: Mapping[str, Line]) -> dict[str, Given]:
    """Return the settings that a `.env` file gives. An empty variable counts as unset."""
    values = {variable: line.value for variable, line in lines.items()}
    given = _from_variables(values, lambda variable: f".env line {lines[variable].number}")
    return {name: each._replace(found_in=path) for name, each in given.items()}


def from_toml(path: str, faults: list[str], *, named: bool) -> dict[str, Given]:
    """Return the settings that a TOML file gives. An unknown name is a fault.

    `named` is false if only `.env` names the file.
    """
    try:
        text = _text_of(Path(path))
        document = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{CONFIG_VARIABLE}: {shown_path(Path(path))} can't be read: {_reason(error)}")
        return {}
    except tomllib.TOMLDecodeError as error:
        # The message may quote keys of the file, so only the place is shown.
        where = _TOML_PLACE.search(str(error))
        faults.append(f"{CONFIG_VARIABLE}: {path} is not TOML{f' {where[0]}' if where else ''}")
        return {}
    known = {field.name for field in fields()}
    groups = {name.partition(".")[0] for name in known if "." in name}
    lines = _toml_lines(text)
    given = {}
    for name, value in _flattened(document, groups):
        place = f"{path} line {lines[name]}" if name in lines else path
        if name in known:
            given[name] = Given(value, f"file {place}", None if named else Path(path))
        elif name in groups:
            faults.append(f"{place}: {name} is a table: write [{name}] with its settings below it")
        else:
            faults.append(f"{place}: there is no setting {shown_name(name)}{_nearest(name, known)}")
    return given


def unknown_variables(variables: Mapping[str, object], where: str) -> Iterator[str]:
    """Yield a warning for each variable that looks like a setting and is none."""
    known = {field.variable for field in fields()} | {CONFIG_VARIABLE}
    for name in sorted(variables):
        if name.startswith(PREFIX) and name not in known and not _SERVICE_LINK.match(name):
            yield f"{name} in {where} is not a setting{_nearest(name, known)}"


def _from_variables(variables: Mapping[str, str], origin: Callable[[str], str]) -> dict[str, Given]:
    return {
        field.name: Given(variables[field.variable], origin(field.variable))
        for field in fields()
        if variables.get(field.variable)
    }


def _blank_lines(text: str) -> int:
    return text[: len(text) - len(text.lstrip())].count("\n")


def _toml_lines(text: str) -> dict[str, int]:
    """Return the lines of the settings, where each has a line for itself: tomllib does not report them."""
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


def _nearest(name: str, known: set[str]) -> str:
    matches = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


def _text_of(path: Path) -> str:
    """Return a file's text, without a byte order mark. Raises OSError or UnicodeDecodeError."""
    data = path.read_bytes()
    if is_utf16(data):
        raise OSError(errno.EILSEQ, "it is encoded in UTF-16; save it as UTF-8")
    return data.decode("utf-8-sig")


def _reason(error: Exception) -> str:
    return error.strerror or "unreadable" if isinstance(error, OSError) else "it is not UTF-8"
