"""The benchmarks' sums: pairs of a round stay together, and what is above its bound is said."""

from pathlib import Path

from benchmarks.contenders import LOGGING, OURS
from benchmarks.report import TABLE, details, headline, replace
from benchmarks.samples import Sample, Samples, Spread
from tests.support.commands import ROOT


def samples() -> Samples:
    """Three rounds on a machine that gets slower: only the ratio within a round stays the same."""
    its = Samples()
    for number, slowness in enumerate((1.0, 2.0, 10.0)):
        for name, value in ((OURS, 30.0), (LOGGING, 35.0), ("Envoy", 60.0), ("nginx", 10.0)):
            its.add(Sample("http", name, "cpu_us", number, value * slowness))
    return its


def test_ratios_and_differences_are_paired_within_a_round() -> None:
    its = samples()
    assert its.ratio("http", "cpu_us", OURS, "Envoy") == Spread(0.5, 0.5, 0.5)
    assert its.difference("http", "cpu_us", LOGGING, OURS) == Spread(10.0, 5.0, 50.0)
    assert its.spread("http", OURS, "cpu_us") == Spread(60.0, 30.0, 300.0)


def test_what_was_not_measured_is_none() -> None:
    its = samples()
    assert its.ratio("https", "cpu_us", OURS, "Envoy") is None
    assert its.ratio("http", "cpu_us", OURS, "Caddy") is None
    assert its.spread("http", OURS, "p99_ms") is None


def test_a_bound_that_is_not_reached_is_said() -> None:
    rows = details(samples(), [OURS, "Envoy", "nginx"]).splitlines()
    assert "| nginx | 2.20 | 3.00 (3.00 to 3.00), not reached |  |" in rows
    assert "| Envoy | 0.70 | 0.50 (0.50 to 0.50) |  |" in rows


def test_the_headline_tells_of_the_dearer_and_of_the_cheaper_one() -> None:
    assert headline(samples()) == (
        "When every request has the same head, which suits the proxy's cache, forwarding one costs "
        "60.0 µs of CPU over http (0.50 times Envoy's, 3.00 times nginx's)."
    )


def test_the_pages_hold_the_figures_that_were_measured() -> None:
    measured = Samples.read(ROOT / "benchmarks" / "results.json")
    assert headline(measured) in (ROOT / "README.md").read_text("utf-8")
    assert details(measured, TABLE) in (ROOT / "benchmarks" / "README.md").read_text("utf-8")


def test_figures_come_back_from_their_file(tmp_path: Path) -> None:
    its = samples()
    its.write(tmp_path / "results.json")
    again = Samples.read(tmp_path / "results.json")
    assert details(again, [OURS, "Envoy"]) == details(its, [OURS, "Envoy"])


def test_a_document_keeps_all_but_its_figures(tmp_path: Path) -> None:
    document = tmp_path / "README.md"
    document.write_text("above\n<!-- figures: make bench -->\nold\n<!-- end of figures -->\nbelow\n")
    replace(document, "new")
    replace(document, "newer")
    assert document.read_text() == (
        "above\n<!-- figures: make bench -->\nnewer\n<!-- end of figures -->\nbelow\n"
    )
