"""checkov has no complaints about the charts, except for those that are known and intended."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

GOLDEN: Final = Path(__file__).parents[2] / "packaging/chart/golden"
CHECKOV: Final = Path(sys.prefix) / "checkov/bin/checkov"
_GATEWAY: Final = "Deployment.apps.bits-bits-auth-proxy"
_TEST: Final = "Pod.apps.bits-bits-auth-proxy-test"
_APP: Final = "Deployment.apps.bits"

# For each check: the objects that it complains about, and why they are intended to be so.
EXCEPTIONS: Final[dict[str, tuple[set[str], str]]] = {
    "CKV_K8S_11": (
        {_GATEWAY, _TEST, _APP},
        "CPU limits: they only make calls wait; the request keeps the pod's share. Values can set one.",
    ),
    "CKV_K8S_15": (
        {_GATEWAY, _TEST, _APP},
        "Pull policy Always: a pod must start where the image is, also while the registry is away.",
    ),
    "CKV_K8S_43": (
        {_GATEWAY, _TEST, _APP},
        "Digest: only who pushed the image knows it; the value image.digest is for it.",
    ),
    "CKV_K8S_8": ({_TEST}, "Liveness: the pod of helm test runs once and ends."),
    "CKV_K8S_9": ({_TEST}, "Readiness: nothing calls the pod of helm test."),
    "CKV2_K8S_6": (
        {_TEST, "Pod.apps.bits"},
        "NetworkPolicy: what the app may reach, only its own chart knows; the pod of helm test ends at once.",
    ),
}


def test_checkov_finds_what_is_known_and_nothing_else() -> None:
    done = subprocess.run(
        [CHECKOV, "--skip-download", "--framework=kubernetes", "--output=json", f"--directory={GOLDEN}"],
        env={**os.environ, "LOG_LEVEL": "ERROR"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    report = json.loads(done.stdout)
    assert report["summary"]["passed"] > 100
    assert report["summary"]["parsing_errors"] == 0
    found: dict[str, set[str]] = {}
    for failed in report["results"]["failed_checks"]:
        # checkov names the pod of a Deployment by its labels too.
        resource = failed["resource"].partition(".app.kubernetes.io/")[0]
        found.setdefault(failed["check_id"], set()).add(resource)
    assert found == {check: resources for check, (resources, _) in EXCEPTIONS.items()}
