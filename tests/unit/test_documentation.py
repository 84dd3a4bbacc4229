"""The documentation is true: its links lead somewhere, and what it names exists."""

import ast
import html
import re
from functools import cache
from pathlib import Path

import pytest

from bits_auth_proxy.forward import problems
from tests.support.commands import ROOT
from tests.support.documentation import PAGES, named
from tools.screencast import calls


@cache
def functions_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return frozenset(
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


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


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_to_headings_lead_to_one(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s:#]*)#([^)\s]+)\)", page.read_text("utf-8"))
    broken = [
        f"{target}#{anchor}"
        for target, anchor in links
        if anchor not in anchors_of((page.parent / target) if target else page)
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


def test_every_problem_is_documented() -> None:
    rows = "\n".join(
        f"| {problem.status} | `{problem.code}` | {problem.title} |"
        for problem in vars(problems).values()
        if isinstance(problem, problems.Problem)
    )
    assert rows in (ROOT / "docs" / "how-it-works.md").read_text("utf-8")


def test_the_recorded_session_makes_the_calls_of_the_readme() -> None:
    picture = (ROOT / "docs" / "demo.svg").read_text("utf-8")
    # The terminal wraps long lines, so spaces don't count.
    shown = "".join(html.unescape("".join(re.findall(r">([^<]*)</text>", picture))).split())
    assert len(calls()) >= 3
    assert [call for call in calls() if "".join(call.split()) not in shown] == [], "make screencast"
