"""The listener's certificate: what a look at its files finds, and what is in use afterwards."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from bits_auth_proxy.forward.certificates import CertificateError, CertificateFiles, ServerCertificate

AUTHORITY = trustme.CA()
ONE, OTHER = AUTHORITY.issue_cert("localhost"), AUTHORITY.issue_cert("localhost")


class Watched(type(Path())):  # type: ignore[misc] # the class of paths on this system
    """A path that does something before each time it is read."""

    before: Iterator[Callable[[], object]]

    def read_bytes(self) -> bytes:
        next(self.before, lambda: None)()
        content: bytes = super().read_bytes()
        return content


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
    cert = Watched(directory / "tls.crt")
    cert.before = iter(
        (
            lambda: None,
            lambda: write_cert(directory, OTHER),
            lambda: write_key(directory, OTHER),
        )
    )
    certificate = ServerCertificate(CertificateFiles(cert, directory / "tls.key"))
    assert not certificate.poll()


def test_files_that_change_all_the_time_are_a_fault(directory: Path) -> None:
    def mismatch() -> Iterator[Callable[[], object]]:
        while True:
            yield lambda: write_cert(directory, AUTHORITY.issue_cert("localhost"))

    cert = Watched(directory / "tls.crt")
    cert.before = mismatch()
    with pytest.raises(CertificateError, match="keep changing"):
        ServerCertificate(CertificateFiles(cert, directory / "tls.key"))
