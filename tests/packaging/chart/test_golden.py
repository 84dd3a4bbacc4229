"""Every case renders to a reviewed manifest: `pytest tests/packaging --regenerate`, then read the diff."""

from pathlib import Path

import pytest

from tests.packaging.chart.cases import CASES
from tests.packaging.chart.engine import manifests

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", CASES)
def test_the_manifests_are_those_reviewed(name: str, regenerate: bool) -> None:
    rendered = "".join(
        f"# {path}\n{_commented(text) if path.endswith('.txt') else text}---\n"
        for path, text in manifests(*CASES[name]).items()
    ).removesuffix("---\n")
    path = GOLDEN / f"{name}.yaml"
    if regenerate:
        path.write_text(rendered, "utf-8")
    assert rendered == path.read_text("utf-8")


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)


def _commented(text: str) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in text.splitlines())
