"""docs/kubernetes.md: its values render, its template is that of the example, and all names in it exist."""

import re
import textwrap
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from bits_auth_proxy.settings import reference
from tests.packaging.chart.cases import REQUIRED, Values
from tests.packaging.chart.engine import EXAMPLE, HELM, PROXY, documents
from tools.generate.chart import documented_values

PAGE: Final = (Path(__file__).parents[3] / "docs/kubernetes.md").read_text("utf-8")
BLOCKS: Final = [
    textwrap.dedent(block) for block in re.findall(r"^ *```yaml\n(.*?)^ *```", PAGE, re.DOTALL | re.MULTILINE)
]
TEMPLATES: Final = [block for block in BLOCKS if "{{" in block]
OTHERS: Final[list[Any]] = [yaml.safe_load(block) for block in BLOCKS if "{{" not in block]
_GROUPS: Final = "image|credentials|trustedCa|resources|monitoring|gateway"


@pytest.mark.parametrize("values", [each for each in OTHERS if "dependencies" not in each])
def test_its_values_are_good(values: Values) -> None:
    if PROXY in values:
        assert documents(EXAMPLE, values)
    else:
        assert documents(PROXY, _merged(REQUIRED, values))


def test_its_dependency_is_the_chart() -> None:
    [[dependency]] = [each["dependencies"] for each in OTHERS if "dependencies" in each]
    example = yaml.safe_load((HELM / EXAMPLE / "Chart.yaml").read_text("utf-8"))["dependencies"][0]
    assert (dependency["name"], dependency["version"]) == (example["name"], example["version"])
    assert f"{dependency['name']}-{dependency['version']}.tgz {dependency['repository']}" in PAGE


def test_its_template_is_the_examples() -> None:
    [template] = TEMPLATES
    example = (HELM / EXAMPLE / "templates/deployment.yaml").read_text("utf-8")
    assert {line.strip() for line in template.splitlines()} <= {line.strip() for line in example.splitlines()}


def test_what_it_names_exists() -> None:
    values = documented_values()
    named = set(re.findall(rf"`((?:{_GROUPS})\.[\w.]+)`", PAGE))
    assert len(named) > 5
    assert not [name for name in named if not any(f"{value}.".startswith(f"{name}.") for value in values)]
    settings = {field.variable for field in reference.fields()}
    assert set(re.findall(r"\bBITS_\w+", PAGE)) <= settings


def _merged(values: Values, more: Values) -> Values:
    return {
        key: _merged(values.get(key, {}), value) if isinstance(value, dict) else value
        for key, value in {**values, **more}.items()
    }
