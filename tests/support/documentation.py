"""The project's documentation: its pages and the commands in them."""

import re
from pathlib import Path

from tests.support.commands import ROOT

PAGES = sorted(
    page
    for folder, pattern in (
        (".", "*.md"),
        (".github", "*.md"),
        ("config", "*.md"),
        ("docs", "**/*.md"),
        ("benchmarks", "*.md"),
        ("helm", "**/*.md"),
    )
    for page in (ROOT / folder).glob(pattern)
    if page.name != "CHANGELOG.md"
)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands_of(page: Path) -> list[str]:
    """Return the commands of a page's `sh` blocks, comments and line ends taken away."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            bare = re.sub(r"(^|\s+)#\s.*$", "", line).strip()
            if bare:
                found.append(re.sub(r"\s+", " ", bare))
    return found
