"""The pytest plugin as users run it: pytest in a separate process, on the examples of the documentation."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError

import pytest

from bits_auth_proxy.testing.sandbox import SandboxError, SandboxHost
from tests.support.commands import ROOT
from tests.support.waiting import HANGS

pytest_plugins = ["pytester"]

EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "testing.md").read_text("utf-8"), re.DOTALL)


def run(pytester: pytest.Pytester) -> pytest.RunResult:
    pytester.makeini("[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function\n")
    return pytester.runpytest_subprocess("-p", "no:cacheprovider")


def test_the_documented_examples_pass(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(**{f"test_{number}": example for number, example in enumerate(EXAMPLES)})
    run(pytester).assert_outcomes(passed=4)
    assert sum("async def" in example for example in EXAMPLES) == 1


def test_each_test_has_its_own_and_a_failing_one_shows_the_log(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import urllib.request

        def ask(sandbox):
            with urllib.request.urlopen(f"{sandbox.url}/oauth2/userinfo") as answer:
                return answer.status

        def test_one(bits_sandbox):
            bits_sandbox.revoke()
            assert ask(bits_sandbox) == 200
            assert bits_sandbox.counters()["tokens_issued"] == 2

        def test_other(bits_sandbox):
            assert bits_sandbox.counters() == {"token_requests": 1, "tokens_issued": 1}
            bits_sandbox.revoke()
            assert ask(bits_sandbox) == 200
            assert bits_sandbox.status()["token"]["state"] == "fresh"
            bits_sandbox.set_faults(latency=0.01, token_mode="fail")
            bits_sandbox.reset()
            bits_sandbox.refresh()
            assert ask(bits_sandbox) == 200
            assert False
        """
    )
    outcome = run(pytester)
    outcome.assert_outcomes(passed=1, failed=1)
    text = outcome.stdout.str()
    assert "Captured stderr call" in text
    assert "userinfo" in text
    assert "bits-demo-secret" not in text


def test_a_wrong_setting_is_named(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def bits_sandbox_settings():
            return {"BITS_TOKEN_WAIT": "soon"}

        def test_it(bits_sandbox):
            pass
        """
    )
    outcome = run(pytester)
    outcome.assert_outcomes(errors=1)
    assert "BITS_TOKEN_WAIT" in outcome.stdout.str()


def test_modules_of_the_project_do_not_replace_those_of_the_sandbox(pytester: pytest.Pytester) -> None:
    """The development environment has an editable installation; tests/packaging tries the others."""
    names = ("config", "prometheus_client", "secrets", "structlog")
    pytester.makepyfile(**dict.fromkeys(names, "raise AssertionError('this is a module of the project')"))
    pytester.makepyfile("def test_it(bits_sandbox): assert bits_sandbox.counters()['tokens_issued'] == 1")
    run(pytester).assert_outcomes(passed=1)


def test_a_wrong_fault_is_named() -> None:
    with SandboxHost() as host, host.serve({}) as sandbox:
        with pytest.raises(SandboxError, match="next_teapot is not a fault"):
            sandbox.set_faults(next_teapot=1)
        sandbox.fail_next("429", times=2)


def test_one_ends_before_the_next_begins() -> None:
    with SandboxHost() as host:
        with host.serve({}) as sandbox:
            assert sandbox.status()["ready"]["ok"]
        with host.serve({"BITS_EMULATOR__TOKEN_LIFETIME": "100"}) as other:
            assert other.status()["token"]["lifetime_seconds"] == 100
            with pytest.raises(URLError, match="refused"):
                sandbox.status()


def test_the_death_of_the_process_is_reported() -> None:
    with contextlib.suppress(BrokenPipeError), SandboxHost() as host:
        host._process.kill()
        with pytest.raises(SandboxError, match="ended with exit code -9"), host.serve({}):
            pass


def test_the_environment_of_the_tests_has_no_effect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("BITS_TOKEN_WAIT=soon\n")
    monkeypatch.setenv("BITS_LISTEN", "nowhere")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with SandboxHost() as host, host.serve({}) as sandbox:
        assert sandbox.status()["token"]["state"] == "fresh"


def test_the_process_ends_when_the_tests_are_killed() -> None:
    program = (
        "import os\n"
        "from bits_auth_proxy.testing.sandbox import SandboxHost\n"
        "host = SandboxHost()\n"
        "with host.serve({}) as sandbox:\n"
        "    print(host._process.pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert killed.returncode == -9
    served_by = Path(f"/proc/{int(killed.stdout)}/cmdline")
    ends = time.monotonic() + HANGS
    while served_by.exists() and b"bits_auth_proxy.testing.host" in served_by.read_bytes():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_an_interrupt_from_the_terminal_ends_the_tests_in_order(tmp_path: Path) -> None:
    """Control-C signals all processes of a group, which here are those of a session."""
    (tmp_path / "test_it.py").write_text(
        "import time\ndef test_it(bits_sandbox):\n    open('started', 'w').close()\n    time.sleep(600)\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    with subprocess.Popen(
        [sys.executable, "-m", "pytest"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as tests:
        ends = time.monotonic() + HANGS
        while not (tmp_path / "started").exists():
            assert time.monotonic() < ends
            time.sleep(0.01)
        os.killpg(tests.pid, signal.SIGINT)
        said, _ = tests.communicate(timeout=HANGS)
    assert tests.returncode == pytest.ExitCode.INTERRUPTED, said
    assert "SandboxError" not in said


def test_nothing_heavy_is_loaded_until_it_is_used() -> None:
    program = (
        "import sys, pytest; before = set(sys.modules); import bits_auth_proxy.testing.plugin; "
        "print(sorted(set(sys.modules) - before))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert (
        found.stdout.strip()
        == "['bits_auth_proxy', 'bits_auth_proxy.testing', 'bits_auth_proxy.testing.plugin']"
    )
