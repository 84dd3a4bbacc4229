"""Which files count as readable by others."""

from pathlib import Path

import pytest

from bits_auth_proxy.settings import permissions
from bits_auth_proxy.settings.permissions import mode_of, readable_by_others


@pytest.mark.parametrize(
    ("mode", "exposed"),
    [(0o600, False), (0o640, False), (0o660, False), (0o644, True), (0o604, True), (0o777, True)],
)
def test_what_everybody_may_read_counts(tmp_path: Path, mode: int, *, exposed: bool) -> None:
    path = tmp_path / "secret"
    path.write_text("")
    path.chmod(mode)
    assert readable_by_others(path) is exposed
    assert mode_of(path) == f"{mode:04o}"
    link = tmp_path / "link"
    link.symlink_to(path)
    assert readable_by_others(link) is exposed


def test_a_file_that_is_not_there_does_not_count(tmp_path: Path) -> None:
    assert not readable_by_others(tmp_path / "none")
    assert mode_of(tmp_path / "none") == "unknown"


@pytest.mark.parametrize(("mounted", "exposed"), [("client_secret", False), ("other", True)])
def test_a_file_that_docker_mounted_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounted: str, *, exposed: bool
) -> None:
    path = tmp_path / "client_secret"
    path.write_text("")
    path.chmod(0o644)
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 0:20 / / rw - overlay overlay rw\n"
        f"36 22 8:1 /secrets/x {tmp_path / mounted} ro,relatime - ext4 /dev/vda1 rw\n"
    )
    monkeypatch.setattr(permissions, "_MOUNTS", mounts)
    assert readable_by_others(path) is exposed
    # Where the system does not tell, it counts.
    monkeypatch.setattr(permissions, "_MOUNTS", tmp_path / "none")
    assert readable_by_others(path)
