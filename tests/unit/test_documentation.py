"""The documentation is true: its links lead somewhere, and what it names exists."""

import ast
import html
import re
from functools import cache
from pathlib import Path

import pytest

from bits_auth_proxy.forward import problems
from tests.support.commands import ROOT, run
from tests.support.documentation import PAGES, named
from tests.support.stand import emulating
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


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_each_generated_section_begins_and_ends_once(page: Path) -> None:
    text = page.read_text("utf-8")
    begun = re.findall(r"^<!-- (\w+): make \w+ -->$", text, re.MULTILINE)
    ended = re.findall(r"^<!-- end of (\w+) -->$", text, re.MULTILINE)
    assert begun == ended
    assert len(set(begun)) == len(begun)


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


async def test_the_faults_of_settings_are_listed_as_documented(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "local-development.md").read_text("utf-8")
    (documented,) = re.findall(r"^bits-auth-proxy: .*?(?=^```)", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "bits.toml").write_text('token_wait = "soon"\n[upstream]\nmax_conections = 5\n', "utf-8")
    code, _, stderr = await run(
        "run", "--config", "bits.toml", env={"BITS_CLIENT_ID": "bits:client::3f1c"}, cwd=tmp_path
    )
    assert (code, stderr) == (64, documented)


async def test_a_failed_check_says_what_is_documented(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "local-development.md").read_text("utf-8")
    (documented,) = re.findall(r"^\$ bits-auth-proxy check\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (tmp_path / ".env").write_text("# from the vault\nBITS_CLIENT_SECRET=wrong\n", "utf-8")
    async with emulating() as (_, api):
        env = {"BITS_CLIENT_ID": "bits:client::3f1c", "BITS_API_URL": api}
        _, stdout, _ = await run("check", env=env, cwd=tmp_path)
    printed = stdout.replace(f"{api}  (environment)", "https://api.bits.bi  (default)")
    failed = "FAIL"
    assert printed[printed.index(failed) :] == documented[documented.index(failed) :]


def test_the_readme_names_the_two_commands_of_a_set_up() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert set(re.findall(r"`make (\w+)", readme)) == {"demo", "test"}
