"""All generated files, each with the function that gives its content."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from bits_auth_proxy.forward import problems
from bits_auth_proxy.settings import reference
from bits_auth_proxy.telemetry import events, metrics
from tools.dashboard import dashboard
from tools.generate import chart, example
from tools.generate.sections import replaced

ROOT: Final = Path(__file__).parents[2]
_CONFIG: Final = ROOT / "config"
_DOCS: Final = ROOT / "docs"
_RULES: Final = _CONFIG / "prometheus" / "alerts.yaml"
"""These rules are written by hand. The chart gets a copy, because a chart must contain all its files."""


class Product(NamedTuple):
    """A generated file. `make` takes the present text, which matters where only a part is generated."""

    path: Path
    make: Callable[[str], str]

    def present(self) -> str:
        """Return the present text, or an empty one if there is no file."""
        return self.path.read_text("utf-8") if self.path.exists() else ""

    def content(self) -> str:
        """Return the text that the file must have. Raises LookupError if it lacks a marker."""
        return self.make(self.present())


def problems_table() -> str:
    """Return a table of all errors that the proxy itself responds with."""
    rows = ["| status | code | why |", "| --- | --- | --- |"]
    rows += [
        f"| {problem.status} | `{problem.code}` | {problem.title} |"
        for problem in vars(problems).values()
        if isinstance(problem, problems.Problem)
    ]
    return "\n".join(rows)


def _whole(path: Path, make: Callable[[], str]) -> Product:
    return Product(path, lambda _: make())


def _section(path: Path, name: str, make: Callable[[], str]) -> Product:
    return Product(path, lambda text: replaced(text, name, make()))


PRODUCTS: Final = (
    _whole(_CONFIG / "bits-auth-proxy.toml", example.as_toml),
    _whole(_CONFIG / "bits-auth-proxy.env", lambda: reference.as_env() + "\n"),
    _whole(_CONFIG / "bits-auth-proxy.schema.json", lambda: reference.as_json_schema() + "\n"),
    _whole(_CONFIG / "grafana" / "dashboard.json", dashboard.as_json),
    _whole(chart.FILES / "dashboard.json", dashboard.as_json),
    _whole(chart.FILES / "alerts.yaml", lambda: _RULES.read_text("utf-8")),
    Product(chart.SCHEMA, chart.with_settings_schema),
    _section(chart.README, "values", chart.values_table),
    _section(_DOCS / "configuration.md", "settings", reference.as_markdown_table),
    _section(_DOCS / "metrics.md", "metrics", metrics.as_markdown_table),
    _section(_DOCS / "logs.md", "events", events.as_markdown),
    _section(_DOCS / "how-it-works.md", "problems", problems_table),
)
