import json
import re
import tomllib
from pathlib import Path

import jsonschema
from dotenv import dotenv_values

from bits_auth_proxy.settings import reference
from bits_auth_proxy.settings.loading import load

DOCS = Path(__file__).parents[2] / "docs"
SECRET = "canary-7f3a"


def test_every_setting_has_its_names() -> None:
    by_name = {field.name: field for field in reference.fields()}
    field = by_name["upstream.max_connections"]
    assert field.variable == "BITS_UPSTREAM__MAX_CONNECTIONS"
    assert field.flag == "--upstream-max-connections"
    assert field.default == "100"
    assert by_name["socket_mode"].default == "600"
    assert all(each.description and each.kind for each in by_name.values())


def test_secrets_have_no_flag() -> None:
    without = {field.name for field in reference.fields() if field.flag is None}
    assert without == {"client_secret", "https_proxy", "emulator.client_secret"}


def test_the_env_file_names_everything_and_sets_nothing(tmp_path: Path) -> None:
    text = reference.as_env()
    assert "BITS_EMULATOR__CLIENT_SECRET=bits-demo-secret" in text
    path = tmp_path / ".env"
    path.write_text(text)
    assert dotenv_values(path) == {}
    assert all(f"#{field.variable}=" in text for field in reference.fields())


def test_the_env_file_uncommented_gives_the_defaults(tmp_path: Path) -> None:
    lines = reference.as_env().splitlines()
    path = tmp_path / ".env"
    path.write_text("\n".join(line[1:] for line in lines if line.startswith("#BITS") and "*****" not in line))
    loaded = load(environ={}, env_file=path, credentials_required=False)
    assert loaded.settings == load(environ={}, env_file=None, credentials_required=False).settings
    assert loaded.warnings == ()


def test_the_schema_describes_every_setting_and_marks_secrets() -> None:
    schema = json.loads(reference.as_json_schema())
    assert schema["additionalProperties"] is False
    assert "upstream" in schema["properties"]
    assert "writeOnly" in json.dumps(schema["properties"]["client_secret"])
    assert "bits-demo-secret" not in json.dumps(schema)
    for group in ("UpstreamSettings", "LimitSettings", "EmulatorSettings"):
        assert all(each["description"] for each in schema["$defs"][group]["properties"].values())


def test_the_schema_accepts_the_documented_files_and_refuses_slips() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(reference.as_json_schema()))
    documented = re.findall(r"```toml\n(.*?)```", (DOCS / "configuration.md").read_text("utf-8"), re.DOTALL)
    assert documented[0].startswith("#:schema ./bits-auth-proxy.schema.json\n")
    for text in documented:
        assert list(validator.iter_errors(tomllib.loads(text))) == []
    for slip in ('log_level = "loud"', "token_wait = 0", "[upstream]\nmax_conections = 5", "listen = 8080"):
        assert list(validator.iter_errors(tomllib.loads(slip))) != [], slip


def test_the_table_has_a_row_for_every_setting() -> None:
    rows = reference.as_markdown_table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == [field.variable for field in reference.fields()]
    assert all(row.count("|") == 4 + row.count("\\|") for row in rows)


def test_the_effective_settings_mask_secrets_and_name_origins() -> None:
    environ = {"BITS_CLIENT_SECRET": SECRET, "BITS_EMULATOR__CLIENT_SECRET": SECRET, "BITS_SCOPE": "a"}
    loaded = load(environ=environ, env_file=None, credentials_required=False)
    (only,) = reference.effective(loaded, only=("scope",))
    assert only == ("BITS_SCOPE", "a", "environment BITS_SCOPE")
    rows = {variable: (value, origin) for variable, value, origin in reference.effective(loaded)}
    assert rows["BITS_CLIENT_SECRET"] == ("********", "environment BITS_CLIENT_SECRET")
    assert rows["BITS_SCOPE"] == ("a", "environment BITS_SCOPE")
    assert rows["BITS_ADMIN_LISTEN"] == ("127.0.0.1:9090", "default")
    assert SECRET not in str(rows)
