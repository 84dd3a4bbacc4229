import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from pydantic import SecretStr

from bits_auth_proxy.assembly import read_in_time
from bits_auth_proxy.files import read_file
from bits_auth_proxy.settings.credentials import Credentials, CredentialsError, CredentialSource
from bits_auth_proxy.settings.loading import load


def pair(client_id: str, secret: str) -> Credentials:
    return Credentials(client_id, SecretStr(secret))


def source_of(directory: Path) -> CredentialSource:
    return CredentialSource(
        client_id_file=directory / "client_id", client_secret_file=directory / "client_secret"
    )


def write(directory: Path, client_id: str, secret: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / "client_id").write_text(client_id)
    (directory / "client_secret").write_text(secret)


def mounted(directory: Path, version: str, client_id: str, secret: str) -> None:
    """Publish a version as Kubernetes does: a new directory, then `..data` renamed over the old link."""
    write(directory / version, client_id, secret)
    link = directory / "..data_tmp"
    link.symlink_to(version)
    link.rename(directory / "..data")
    for name in ("client_id", "client_secret"):
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"..data/{name}")


def test_values_are_read_and_never_watched() -> None:
    source = CredentialSource(client_id="acme", client_secret=SecretStr("s3cret"))
    assert source.read() == pair("acme", "s3cret")
    assert not source.watched
    assert source.poll() is None
    assert source.exposed_files() == []


def test_the_secret_shows_in_no_repr() -> None:
    assert "s3cret" not in repr(pair("acme", "s3cret"))
    assert "s3cret" not in str(pair("acme", "s3cret"))


def test_the_settings_directory_means_its_two_files(tmp_path: Path) -> None:
    write(tmp_path, "acme\n", "s3cret\n")
    environ = {"BITS_CREDENTIALS_DIR": str(tmp_path)}
    settings = load(environ=environ, env_file=None, credentials_required=True).settings
    source = CredentialSource.from_settings(settings)
    assert source.watched
    assert source.read() == pair("acme", "s3cret")


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe-canary", b"two\nlines-canary", b"nul\0-canary"])
@pytest.mark.parametrize("name", ["client_id", "client_secret"])
def test_malformed_files_are_errors_that_hold_no_content(tmp_path: Path, name: str, content: bytes) -> None:
    write(tmp_path, "acme", "s3cret")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CredentialsError) as caught:
        source_of(tmp_path).read()
    assert str(tmp_path / name) in str(caught.value)
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert "s3cret" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match=r"BITS_CLIENT_ID_FILE: .*client_id"):
        source_of(tmp_path).read()


def test_nothing_new_is_no_change(tmp_path: Path) -> None:
    write(tmp_path, "acme", "one")
    source = source_of(tmp_path)
    source.read()
    write(tmp_path, "acme\n", "one\n")
    assert source.poll() is None


def test_a_rewrite_in_place_is_noticed_once(tmp_path: Path) -> None:
    write(tmp_path, "acme", "one")
    source = source_of(tmp_path)
    source.read()
    (tmp_path / "client_secret").write_text("two")
    assert source.poll() == pair("acme", "two")
    assert source.poll() is None


def test_a_rename_over_the_file_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, "acme", "one")
    source = source_of(tmp_path)
    source.read()
    (tmp_path / "new").write_text("two")
    (tmp_path / "new").rename(tmp_path / "client_secret")
    assert source.poll() == pair("acme", "two")


def test_a_swapped_data_link_is_noticed(tmp_path: Path) -> None:
    mounted(tmp_path, "..v1", "acme", "one")
    source = source_of(tmp_path)
    assert source.read() == pair("acme", "one")
    mounted(tmp_path, "..v2", "acme2", "two")
    assert source.poll() == pair("acme2", "two")
    assert source.poll() is None


def test_a_half_done_rotation_loses_nothing_and_is_told(tmp_path: Path) -> None:
    write(tmp_path, "acme", "one")
    source = source_of(tmp_path)
    source.read()
    secret = tmp_path / "client_secret"

    def told() -> None:
        with pytest.raises(CredentialsError, match=r"BITS_CLIENT_SECRET_FILE: .*client_secret"):
            source.poll()

    secret.write_text("")
    told()
    secret.unlink()
    told()
    secret.write_bytes(b"\xff")
    told()
    secret.write_text("two")
    assert source.poll() == pair("acme", "two")


def test_a_swap_between_the_two_reads_never_pairs_old_with_new(tmp_path: Path) -> None:
    mounted(tmp_path, "..v1", "old", "old-secret")

    swapped = False

    def read(path: Path) -> bytes:
        """Publish the next version when the id has just been read, once."""
        nonlocal swapped
        content = read_file(path)
        if path.name == "client_id" and not swapped:
            swapped = True
            mounted(tmp_path, "..v2", "new", "new-secret")
        return content

    source = CredentialSource(
        client_id_file=tmp_path / "client_id", client_secret_file=tmp_path / "client_secret", read=read
    )
    assert source.read() == pair("new", "new-secret")
    assert swapped


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


@pytest.mark.parametrize("name", ["client_id", "client_secret"])
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (make_fifo, "it is a FIFO"),
        (make_socket, "it is a socket"),
        (Path.mkdir, "it is a directory"),
        (link_to("/dev/zero"), "it is a device"),
        (link_to("/dev/null"), "it is a device"),
        (link_to("/"), "it is a directory"),
        (link_to("nowhere"), "No such file"),
        (link_to("client_id"), ""),
    ],
    ids=["fifo", "socket", "directory", "endless device", "device", "link", "dangling", "loop"],
)
def test_what_is_no_regular_file_is_named_and_blocks_nothing(
    tmp_path: Path, name: str, make: Callable[[Path], None], kind: str
) -> None:
    write(tmp_path, "acme", "s3cret")
    source = source_of(tmp_path)
    source.read()
    (tmp_path / name).unlink()
    make(tmp_path / name)
    if not kind and name == "client_secret":
        # A link to the other file is a link to a file.
        assert source.read() == pair("acme", "acme")
        return
    with pytest.raises(CredentialsError, match=f"{name} can't be read: {kind}"):
        source.poll()


def test_a_link_to_a_file_is_a_file(tmp_path: Path) -> None:
    write(tmp_path / "real", "acme", "s3cret")
    for name in ("client_id", "client_secret"):
        (tmp_path / name).symlink_to(Path("real") / name)
    assert source_of(tmp_path).read() == pair("acme", "s3cret")


def test_a_utf8_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    write(tmp_path, "", "")
    for name, text in (("client_id", "acme"), ("client_secret", "s3cret")):
        (tmp_path / name).write_text(f"{text}\r\n", "utf-8-sig")
    source = source_of(tmp_path)
    marked = source.read()
    assert marked == pair("acme", "s3cret")
    assert [text.split(":")[0] for text in source.oddities(marked)] == [
        "BITS_CLIENT_ID_FILE",
        "BITS_CLIENT_SECRET_FILE",
    ]
    assert all("byte order mark" in text for text in source.oddities(marked))
    write(tmp_path, "acme", "s3cret")
    assert source.oddities(source.read()) == []


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_named(tmp_path: Path, encoding: str) -> None:
    write(tmp_path, "acme", "")
    (tmp_path / "client_secret").write_text("canary\r\n", encoding)
    with pytest.raises(CredentialsError, match="client_secret is encoded in UTF-16") as caught:
        source_of(tmp_path).read()
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("client_id", "secret", "named"),
    [
        ("acme", "s3cret", []),
        ("acme", '"', []),
        ("acme", "\"s3cret'", []),
        ("acme", '"s3cret"', ["BITS_CLIENT_SECRET"]),
        ("acme", "'s3cret'", ["BITS_CLIENT_SECRET"]),
        ("acme", "\u201cs3cret\u201d", ["BITS_CLIENT_SECRET"]),
        ('"acme"', "s3cret", ["BITS_CLIENT_ID"]),
        ("bits:acme", "s3:cret", ["BITS_CLIENT_ID"]),
        ("'a:b'", "`s3cret`", ["BITS_CLIENT_ID", "BITS_CLIENT_ID", "BITS_CLIENT_SECRET"]),
    ],
)
@pytest.mark.parametrize("in_files", [False, True])
def test_what_looks_like_a_slip_is_named_and_never_shown(
    tmp_path: Path, client_id: str, secret: str, named: list[str], in_files: bool
) -> None:
    write(tmp_path, client_id, secret)
    source = (
        source_of(tmp_path)
        if in_files
        else CredentialSource(client_id=client_id, client_secret=SecretStr(secret))
    )
    found = source.oddities(source.read())
    places = [text.split(":")[0] for text in found]
    assert places == [f"{name}_FILE" if in_files else name for name in named]
    for text in found:
        assert "s3cret" not in text
        assert "acme" not in text


def test_a_secret_that_everybody_may_read_is_named(tmp_path: Path) -> None:
    write(tmp_path, "acme", "one")
    secret = tmp_path / "client_secret"
    secret.chmod(0o644)
    assert secret in source_of(tmp_path).exposed_files()
    secret.chmod(0o640)
    (tmp_path / "client_id").chmod(0o640)
    assert source_of(tmp_path).exposed_files() == []


def test_a_volume_of_kubernetes_is_mounted_for_one_container_alone(tmp_path: Path) -> None:
    mounted(tmp_path, "..1", "acme", "s3cret")
    (tmp_path / "client_secret").chmod(0o644)
    assert source_of(tmp_path).exposed_files() == []


def test_a_mount_that_hangs_at_the_first_read_is_reported_in_time(tmp_path: Path) -> None:
    released = threading.Event()

    def hang(path: Path) -> NoReturn:
        released.wait()
        raise FileNotFoundError(2, "gone", path)

    source = CredentialSource(client_id="id", client_secret_file=tmp_path / "client_secret", read=hang)
    try:
        with pytest.raises(CredentialsError, match=r"client_secret can't be read: no answer within 0\.01 s"):
            read_in_time(source, limit=0.01)
    finally:
        released.set()


def test_what_the_first_read_raises_is_raised(tmp_path: Path) -> None:
    source = CredentialSource(client_id="id", client_secret_file=tmp_path / "client_secret")
    with pytest.raises(CredentialsError, match="No such file"):
        read_in_time(source)
    (tmp_path / "client_secret").write_text("s3cret")
    assert read_in_time(source).client_id == "id"
    assert source.poll() is None
