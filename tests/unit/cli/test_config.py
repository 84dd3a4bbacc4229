"""The table of `bits-auth-proxy config`."""

from bits_auth_proxy.cli.config import as_table


def test_values_stand_in_a_column() -> None:
    rows = [("BITS_SCOPE", "", "default"), ("BITS_TOKEN_WAIT", "3", "file bits.toml line 1")]
    assert as_table(rows).split("\n") == [
        "BITS_SCOPE       (unset)  (default)",
        "BITS_TOKEN_WAIT  3  (file bits.toml line 1)",
    ]
