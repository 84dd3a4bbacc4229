"""The alerts: promtool accepts them, each fires when it should and only then, and each has a runbook."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from bits_auth_proxy.telemetry.metrics import FAMILIES
from tests.support.commands import ROOT
from tests.support.waiting import HANGS
from tests.system.monitoring.alert_cases import CASES, Case

FILE = ROOT / "config" / "prometheus" / "alerts.yaml"
RUNBOOKS = ROOT / "docs" / "runbooks"
RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for group in yaml.safe_load(FILE.read_text("utf-8"))["groups"]
    for rule in group["rules"]
}


def promtool(*arguments: str) -> str:
    """Run promtool, which must succeed; return its output."""
    done = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, timeout=HANGS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_file_is_a_rule_file() -> None:
    assert f"SUCCESS: {len(RULES)} rules found" in promtool("check", "rules", str(FILE))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}: {case.what}")
def test_it_fires_when_it_should_and_not_else(case: Case, tmp_path: Path) -> None:
    rule = RULES[case.alert]
    firing = {
        "exp_labels": {**case.labels, **rule["labels"]},
        "exp_annotations": {**rule["annotations"], "summary": case.summary},
    }
    test = {
        "rule_files": [str(FILE)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
                "alert_rule_test": [
                    {
                        "eval_time": f"{case.minutes}m",
                        "alertname": case.alert,
                        "exp_alerts": [firing] if case.summary else [],
                    }
                ],
            }
        ],
    }
    path = tmp_path / "test.yaml"
    path.write_text(json.dumps(test), "utf-8")
    promtool("test", "rules", str(path))


def test_every_alert_is_seen_firing_and_staying_quiet() -> None:
    assert {case.alert for case in CASES if case.summary} == set(RULES)
    assert {case.alert for case in CASES if not case.summary} == set(RULES)


@pytest.mark.parametrize("alert", RULES)
def test_every_alert_says_what_is_wrong_and_has_a_runbook(alert: str) -> None:
    rule = RULES[alert]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    page = ROOT / rule["annotations"]["runbook_url"]
    assert page == RUNBOOKS / f"{alert}.md"
    text = page.read_text("utf-8")
    assert text.startswith(f"# {alert}\n")
    sections = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert sections == ["Meaning", "Impact", "Diagnosis", "Remedy"]


def test_no_runbook_is_left_behind() -> None:
    assert {page.stem for page in RUNBOOKS.glob("*.md")} == set(RULES)


def test_every_runbook_is_in_the_index() -> None:
    operations = (ROOT / "docs" / "operations.md").read_text("utf-8")
    assert [alert for alert in RULES if f"[{alert}](runbooks/{alert}.md)" not in operations] == []


def test_what_the_alerts_ask_for_exists() -> None:
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    known = {f"bits_proxy_{family.name}{each}" for family in FAMILIES for each in suffixes[family.kind]}
    words = FILE.read_text("utf-8").replace("(", " ").replace("{", " ").replace("[", " ").split()
    named = {word.strip(")},") for word in words if word.startswith("bits_proxy_")} - {"bits_proxy_"}
    assert len(named) >= 15
    assert named <= known
