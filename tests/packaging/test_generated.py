"""The generated files are up to date, and the examples among them work. `make generate` writes them."""

import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest

from bits_auth_proxy.settings import reference
from bits_auth_proxy.settings.loading import load
from tools.generate.products import PRODUCTS, ROOT, Product
from tools.generate.sections import replaced

CONFIG = ROOT / "config"
TOML = CONFIG / "bits-auth-proxy.toml"
PAGE = "Before\n<!-- x: make generate -->\nold\n<!-- end of x -->\nAfter\n"


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: str(product.path.relative_to(ROOT)))
def test_it_is_up_to_date(product: Product) -> None:
    assert product.present() == product.content(), "make generate"


def test_every_file_in_config_is_described() -> None:
    page = (CONFIG / "README.md").read_text("utf-8")
    files = {path.relative_to(CONFIG).as_posix() for path in CONFIG.rglob("*") if path.is_file()}
    assert set(re.findall(r"^\| \[`(\S+)`\]", page, re.MULTILINE)) == files - {"README.md"}


def test_the_example_file_names_every_setting() -> None:
    whole = tomllib.loads(uncommented(TOML.read_text("utf-8"), unset=True))
    named = {
        f"{key}.{inner}" if isinstance(value, dict) else key
        for key, value in whole.items()
        for inner in (value if isinstance(value, dict) else [""])
    }
    assert named == {field.name for field in reference.fields()}


def test_the_example_file_is_complete_and_valid(tmp_path: Path) -> None:
    """It sets all that must be set, once the directory that it names is there."""
    path = tmp_path / "bits.toml"
    mounted = credentials_directory(tmp_path)
    path.write_text(TOML.read_text("utf-8").replace("/run/secrets/bits", mounted), "utf-8")
    loaded = load(environ={}, config_file=str(path), env_file=None, credentials_required=True)
    assert (loaded.warnings, loaded.exposed) == ((), ())
    assert set(loaded.origins) == {"credentials_dir"}
    schema = json.loads((CONFIG / "bits-auth-proxy.schema.json").read_text("utf-8"))
    jsonschema.validate(tomllib.loads(TOML.read_text("utf-8")), schema)


def test_the_example_file_uncommented_gives_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "bits.toml"
    path.write_text(uncommented(TOML.read_text("utf-8")).replace("credentials_dir =", "#"), "utf-8")
    loaded = load(environ={}, config_file=str(path), env_file=None, credentials_required=False)
    assert loaded.settings == load(environ={}, env_file=None, credentials_required=False).settings
    assert len(loaded.origins) > 40


def test_a_section_is_replaced_and_what_surrounds_it_stays() -> None:
    made = replaced(PAGE, "x", "new\n")
    assert made == "Before\n<!-- x: make generate -->\n\nnew\n\n<!-- end of x -->\nAfter\n"
    assert replaced(made, "x", "new") == made


@pytest.mark.parametrize("page", ["", PAGE.replace("end of x", "end"), PAGE.replace("x: make", "y: make")])
def test_a_page_without_the_section_is_a_failure(page: str) -> None:
    with pytest.raises(LookupError, match="end of x"):
        replaced(page, "x", "new")


def credentials_directory(directory: Path) -> str:
    (directory / "client_id").write_text("id", "utf-8")
    (directory / "client_secret").write_text("secret", "utf-8")
    return str(directory)


def uncommented(text: str, *, unset: bool = False) -> str:
    """Return the example with all defaults set, and with settings that have none too if `unset`."""
    lines = re.sub(r"^#(?=\w+ = )", "", text, flags=re.MULTILINE)
    lines = lines.replace("= <number>", '= "<number>"')
    return lines if unset else re.sub(r'^\w+ = "<\w+>"$', "", lines, flags=re.MULTILINE)
