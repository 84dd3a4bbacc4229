"""Where text for people goes."""

import pytest

from bits_auth_proxy.cli.output import print_error, print_text


def test_results_and_errors_go_to_different_streams(capsys: pytest.CaptureFixture[str]) -> None:
    print_text("ready")
    print_error("in use")
    assert capsys.readouterr() == ("ready\n", "bits-auth-proxy: in use\n")
