"""Credentials in files."""

from pathlib import Path

from tests.support.commands import CLIENT_ID


def mount(directory: Path, secret: str, client_id: str = CLIENT_ID) -> None:
    """Write the pair as kubelet does: a new directory, then one rename of the link to it."""
    version = directory / f"..{len(list(directory.iterdir()))}"
    version.mkdir()
    (version / "client_id").write_text(client_id, "utf-8")
    (version / "client_secret").write_text(secret + "\n", "utf-8")
    link = directory / "..data_tmp"
    link.symlink_to(version.name)
    link.rename(directory / "..data")
    for name in ("client_id", "client_secret"):
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(Path("..data") / name)
