"""The documentation is true: its links lead somewhere, and what it names exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.support.commands import ROOT
from tests.support.documentation import PAGES, named


@cache
def functions_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return frozenset(
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
    broken = [
        target
        for target in targets
        if not target.startswith(("http://", "https://", "#", "mailto:"))
        and not (page.parent / target.partition("#")[0]).exists()
    ]
    assert broken == []


def test_the_tests_that_are_named_exist() -> None:
    names = [
        (path, test)
        for page in PAGES
        for path, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text("utf-8"))
    ]
    assert len(names) >= 20
    assert [name for name in names if name[1] not in functions_in(ROOT / name[0])] == []
