"""The locks name distributions alone, nothing of the machine; all that is imported is declared."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.support.commands import ROOT

LOCKS = [*sorted((ROOT / "requirements").iterdir()), ROOT / "tests/system/kubernetes/checkov.lock"]
PIN = re.compile(r"[a-z0-9-]+(\[[a-z0-9,-]+\])?==\S+( ; [^\\/:]+)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
REASON = re.compile(
    r"    # +(via( [a-z0-9-]+)?|[a-z0-9-]+|(via )?bits-auth-proxy \(pyproject\.toml(:\w+)?\)"
    r"|(via )?-c requirements/\w+\.lock)"
)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_holds_pins_hashes_and_reasons_alone(lock: Path) -> None:
    lines = lock.read_text("utf-8").splitlines()
    assert any(PIN.fullmatch(line) for line in lines)
    assert [line for line in lines if not any(each.fullmatch(line) for each in (PIN, HASH, REASON))] == []


def test_every_distribution_that_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {re.split(r"[^\w-]", each)[0] for each in project["dependencies"]}
    owners = packages_distributions()
    imported = {
        owner.lower().replace("_", "-")
        for path in (ROOT / "proxy").rglob("*.py")
        for name in imports_of(path)
        for owner in owners.get(name, [name])
    }
    # The pytest plugin is imported by pytest alone.
    assert imported - {"bits-auth-proxy", "pytest"} == declared


def imports_of(path: Path) -> set[str]:
    """Return the top-level names of other projects that a module imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names
