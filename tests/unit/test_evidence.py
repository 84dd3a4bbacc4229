"""A test that fails shows what the processes of that test said."""

import pytest

from tests.support.commands import ROOT

pytest_plugins = ["pytester"]


def test_a_failure_shows_what_was_said_last_in_that_test_and_a_success_nothing(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeini(f"[pytest]\npythonpath = {ROOT}\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makeconftest("from tests.conftest import pytest_runtest_logstart, pytest_runtest_makereport")
    pytester.makepyfile(
        """
        from tests.support import evidence

        def test_well():
            evidence.keep("one", lambda: "never shown")
            evidence.keep("the pod", lambda: "lasts", lasting=True)

        def test_ill():
            evidence.keep("another", lambda: "\\n".join(f"line {n}." for n in range(1000)))
            evidence.keep("silent", lambda: "")
            assert False
        """
    )
    outcome = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    outcome.assert_outcomes(passed=1, failed=1)
    text = outcome.stdout.str()
    assert "- another -" in text
    assert "line 999." in text
    assert "line 1." not in text
    assert "- the pod -" in text
    assert "silent -" not in text
    assert "never shown" not in text
