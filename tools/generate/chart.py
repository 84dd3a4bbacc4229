"""What the chart says about its values: the schema of `settings`, and the README's table."""

import json
from pathlib import Path
from typing import Any, Final

import yaml

from bits_auth_proxy.settings import reference

CHART: Final = Path(__file__).parents[2] / "helm" / "bits-auth-proxy"
FILES: Final = CHART / "files"
SCHEMA: Final = CHART / "values.schema.json"
README: Final = CHART / "README.md"

# The chart sets these itself.
_OURS: Final = {"client_id", "client_secret", "listen", "admin_listen", "socket_mode"}
_MARK: Final = "# --"
_WITHOUT_PASSWORD: Final = "^[^@]*$"


def with_settings_schema(text: str) -> str:
    """Return the schema of the chart's values, given as `text`, with its part `settings` made anew."""
    schema = json.loads(text)
    schema["properties"]["settings"] = settings_schema()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def settings_schema() -> dict[str, Any]:
    """Return the JSON Schema of the value `settings`: every setting by its variable, with type and limits.

    Settings that name a file or a directory are left out, because the chart mounts none of these.
    """
    whole = json.loads(reference.as_json_schema())
    properties = {}
    for field in reference.fields():
        group, _, name = field.name.rpartition(".")
        if field.kind in ("file", "directory") or field.name in _OURS or group == "emulator":
            continue
        model = whole["$defs"][whole["properties"][group]["$ref"].rpartition("/")[2]] if group else whole
        properties[field.variable] = _plain(model["properties"][name])
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a setting's schema reduced to what a chart needs. A chart's values hold no secrets."""
    kept = {key: value for key, value in schema.items() if key not in ("default", "title", "$ref")}
    if kept.pop("writeOnly", False):
        kept["pattern"] = _WITHOUT_PASSWORD
    kept.pop("format", None)
    options = [_plain(option) for option in kept.pop("anyOf", ()) if option.get("type") != "null"]
    if len(options) == 1:
        return {**kept, **options[0]}
    return {**kept, "anyOf": options} if options else kept


def values_table() -> str:
    """Return the README's table, which has a row for every value with a comment `# --` above it."""
    text = (CHART / "values.yaml").read_text("utf-8")
    rows = ["| value | default | description |", "| --- | --- | --- |"]
    lines = text.splitlines()
    for path, line, node in _keys(yaml.compose(text), ()):
        above = lines[line - 1].strip()
        if above.startswith(_MARK):
            default = yaml.safe_load(yaml.serialize(node))
            shown = "" if default == "" else f"`{json.dumps(default).strip(chr(34))}`"
            rows.append(f"| `{'.'.join(path)}` | {shown} | {above.removeprefix(_MARK).strip()} |")
    return "\n".join(rows)


def documented_values() -> list[str]:
    """Return the dotted names of the values in the table."""
    return [row.split("`")[1] for row in values_table().splitlines()[2:]]


def _keys(node: Any, path: tuple[str, ...]) -> Any:
    for key, value in node.value:
        yield (*path, key.value), key.start_mark.line, value
        if isinstance(value, yaml.MappingNode):
            yield from _keys(value, (*path, key.value))
