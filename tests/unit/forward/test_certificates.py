"""The listener's certificate: what a look at its files finds, and what is in use afterwards."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from bits_auth_proxy.files import read_file
from bits_auth_proxy.forward.certificates import CertificateError, CertificateFiles, ServerCertificate

AUTHORITY = trustme.CA()
ONE, OTHER = AUTHORITY.issue_cert("localhost"), AUTHORITY.issue_cert("localhost")


class Reader:
    """Reads files, and does something before each time that it reads `path`."""

    def __init__(self, path: Path, before: Iterator[Callable[[], object]]) -> None:
        self.path = path
        self.before = before

    def __call__(self, path: Path) -> bytes:
        if path == self.path:
            next(self.before, lambda: None)()
        return read_file(path)


def files(directory: Path) -> CertificateFiles:
    return CertificateFiles(directory / "tls.crt", directory / "tls.key")


def write_cert(directory: Path, leaf: trustme.LeafCert) -> None:
    leaf.cert_chain_pems[0].write_to_path(directory / "tls.crt")


def write_key(directory: Path, leaf: trustme.LeafCert) -> None:
    leaf.private_key_pem.write_to_path(directory / "tls.key")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_cert(tmp_path, ONE)
    write_key(tmp_path, ONE)
    return tmp_path


def test_files_that_stay_change_nothing(directory: Path) -> None:
    certificate = ServerCertificate(files(directory))
    context = certificate.context
    assert not certificate.poll()
    write_cert(directory, ONE)
    assert not certificate.poll()
    assert certificate.context is context


def test_another_pair_is_taken_once(directory: Path) -> None:
    certificate = ServerCertificate(files(directory))
    context = certificate.context
    write_cert(directory, OTHER)
    write_key(directory, OTHER)
    assert certificate.poll()
    assert certificate.context is not context
    assert not certificate.poll()


def test_half_a_pair_is_told_once_and_the_other_half_makes_it_good(directory: Path) -> None:
    certificate = ServerCertificate(files(directory))
    context = certificate.context
    write_cert(directory, OTHER)
    with pytest.raises(CertificateError, match="not the key"):
        certificate.poll()
    assert not certificate.poll()
    assert certificate.context is context
    write_key(directory, OTHER)
    assert certificate.poll()


def test_a_file_that_is_gone_is_told_once_and_its_return_is_a_change(directory: Path) -> None:
    certificate = ServerCertificate(files(directory))
    (directory / "tls.key").unlink()
    with pytest.raises(CertificateError, match="can't be read: No such file"):
        certificate.poll()
    assert not certificate.poll()
    write_key(directory, ONE)
    assert certificate.poll()


def test_a_swap_in_the_middle_of_reading_is_no_fault(directory: Path) -> None:
    steps = iter(
        (
            lambda: None,
            lambda: write_cert(directory, OTHER),
            lambda: write_key(directory, OTHER),
        )
    )
    certificate = ServerCertificate(files(directory), read=Reader(directory / "tls.crt", steps))
    assert not certificate.poll()


def test_files_that_change_all_the_time_are_a_fault(directory: Path) -> None:
    def mismatch() -> Iterator[Callable[[], object]]:
        while True:
            yield lambda: write_cert(directory, AUTHORITY.issue_cert("localhost"))

    with pytest.raises(CertificateError, match="keep changing"):
        ServerCertificate(files(directory), read=Reader(directory / "tls.crt", mismatch()))


@pytest.mark.parametrize("name", ["tls.crt", "tls.key"])
def test_a_fifo_is_no_file_and_blocks_nothing(directory: Path, name: str) -> None:
    certificate = ServerCertificate(files(directory))
    (directory / name).unlink()
    os.mkfifo(directory / name)
    with pytest.raises(CertificateError, match="can't be read: it is a FIFO"):
        certificate.poll()
    with pytest.raises(CertificateError, match="can't be read: it is a FIFO"):
        ServerCertificate(files(directory))
