"""A Unix socket gets the permissions asked for, whatever the umask of the process, which stays as it is."""

import os
from pathlib import Path

import pytest

from bits_auth_proxy.forward.listener import bind


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_a_unix_socket_has_the_mode_that_was_asked_for(tmp_path: Path, umask: int, mode: int) -> None:
    path = tmp_path / "bits.sock"
    before = os.umask(umask)
    try:
        with bind(str(path), socket_mode=mode):
            assert path.stat().st_mode & 0o777 == mode
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
