"""The TLS layer against a server's session in memory: no socket, every byte counted."""

import contextlib
import ssl
from itertools import accumulate
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from bits_auth_proxy.forward.certificates import CertificateFiles, server_context
from bits_auth_proxy.forward.dialing import client_context
from bits_auth_proxy.forward.tls import TlsChannel
from tests.support import pythons
from tests.support import strategies as make

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("api.bits.bi")
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def trusting(authority: trustme.CA = AUTHORITY) -> ssl.SSLContext:
    context = client_context(ca_file=None, client_cert=None, client_key=None)
    authority.configure_trust(context)
    return context


CONTEXT = trusting()


class Server:
    """The other end, by the standard library alone."""

    def __init__(
        self, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, *, keylog: str | None = None
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if keylog is not None:
            # The records of a forger begin where the session's end, which then sends no tickets.
            context.keylog_filename = keylog
            context.num_tickets = 0
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2", "http/1.1"])
        CERTIFICATE.configure_cert(context)
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.session = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def handshake(self, data: bytes) -> bytes:
        self.incoming.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            self.session.do_handshake()
        return self.outgoing.read()

    def receive(self, data: bytes) -> bytes:
        self.incoming.write(data)
        got = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            while piece := self.session.read(65_536):
                got += piece
        return got

    def send(self, data: bytes) -> bytes:
        self.session.write(data)
        return self.outgoing.read()

    def close(self) -> bytes:
        """The server's close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.session.unwrap()
        return self.outgoing.read()


def connected(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> tuple[TlsChannel, Server]:
    channel, server = TlsChannel(CONTEXT, "api.bits.bi"), Server(version)
    data = server.handshake(channel.handshake())
    while not channel.established:
        data = server.handshake(channel.handshake(data))
    # TLS 1.3: the session tickets.
    assert channel.receive(data) == b""
    return channel, server


def certificate_files(directory: Path) -> CertificateFiles:
    files = CertificateFiles(directory / "cert", directory / "key")
    CERTIFICATE.cert_chain_pems[0].write_to_path(files.cert)
    CERTIFICATE.private_key_pem.write_to_path(files.key)
    return files


def test_nothing_older_than_tls_1_2_is_spoken_whatever_the_systems_openssl_allows(tmp_path: Path) -> None:
    for context in (CONTEXT, server_context(certificate_files(tmp_path))):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.options & ssl.OP_NO_RENEGOTIATION


@pytest.mark.parametrize("default", ["DEFAULT", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"])
def test_every_suite_has_forward_secrecy_and_aead_whatever_pythons_default_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, default: str
) -> None:
    pythons.suites_of_openssl(monkeypatch, default)
    contexts = (
        client_context(ca_file=None, client_cert=None, client_key=None),
        server_context(certificate_files(tmp_path)),
    )
    names = [{suite["name"] for suite in context.get_ciphers()} for context in contexts]
    assert names[0] == names[1]
    older = {name for name in names[0] if not name.startswith("TLS_")}
    assert older == {
        f"ECDHE-{signature}-{cipher}"
        for signature in ("ECDSA", "RSA")
        for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    }
    assert {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"} <= names[0]


@pytest.mark.parametrize("newer", [True, False])
def test_verification_is_the_same_whatever_pythons_default_is(
    monkeypatch: pytest.MonkeyPatch, *, newer: bool
) -> None:
    pythons.verification_of_3_13(monkeypatch, newer=newer)
    flags = client_context(ca_file=None, client_cert=None, client_key=None).verify_flags
    assert not flags & ssl.VERIFY_X509_STRICT
    assert flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    assert flags & ssl.VERIFY_X509_TRUSTED_FIRST


@pytest.mark.parametrize("version", VERSIONS)
def test_bytes_go_both_ways(version: ssl.TLSVersion) -> None:
    channel, server = connected(version)
    assert channel.version == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
    assert server.session.selected_alpn_protocol() == "http/1.1"
    assert server.receive(channel.send(b"ping")) == b"ping"
    assert channel.receive(server.send(b"pong")) == b"pong"
    assert channel.pending_output() == b""
    assert not channel.closed_cleanly


@pytest.mark.parametrize("version", VERSIONS)
def test_large_messages_are_sent_and_read_whole(version: ssl.TLSVersion) -> None:
    channel, server = connected(version)
    data = bytes(range(256)) * 4096
    assert server.receive(channel.send(data)) == data
    assert channel.receive(server.send(data)) == data


@given(st.data(), st.lists(st.binary(min_size=1, max_size=40_000), min_size=1, max_size=4))
def test_a_record_without_its_end_is_noticed_wherever_it_is_cut(
    data: st.DataObject, messages: list[bytes]
) -> None:
    channel, server = connected()
    assert not channel.has_partial_record
    records = [server.send(message[:16_384]) for message in messages]
    ends = set(accumulate(map(len, records)))
    position = 0
    for piece in data.draw(make.splits(b"".join(records))):
        channel.receive(piece)
        position += len(piece)
        assert channel.has_partial_record == (position > 0 and position not in ends)


@given(st.data(), st.lists(st.binary(min_size=1, max_size=40_000), max_size=4))
def test_ciphertext_may_be_cut_anywhere(data: st.DataObject, messages: list[bytes]) -> None:
    channel, server = connected()
    stream = b"".join(server.send(message) for message in messages) + server.close()
    pieces = data.draw(make.splits(stream))
    assert b"".join(channel.receive(piece) for piece in pieces) == b"".join(messages)
    assert channel.closed_cleanly


def test_the_handshake_may_come_byte_by_byte() -> None:
    channel, server = TlsChannel(CONTEXT, "api.bits.bi"), Server()
    answer = b""
    for byte in server.handshake(channel.handshake()):
        assert not channel.established
        answer += channel.handshake(bytes([byte]))
    assert channel.established
    server.handshake(answer)
    assert server.receive(channel.send(b"x")) == b"x"


def test_what_follows_the_handshake_in_the_same_read_is_not_lost() -> None:
    channel, server = TlsChannel(CONTEXT, "api.bits.bi"), Server(ssl.TLSVersion.TLSv1_2)
    flight = channel.handshake(server.handshake(channel.handshake()))
    assert not channel.established
    finished = server.handshake(flight)
    assert channel.handshake(finished + server.send(b"early")) == b""
    assert channel.established
    assert channel.receive(b"") == b"early"


def test_content_and_close_notify_in_one_read_are_both_seen() -> None:
    channel, server = connected()
    assert channel.receive(server.send(b"last") + server.close()) == b"last"
    assert channel.closed_cleanly


def test_what_follows_close_notify_is_dropped() -> None:
    channel, server = connected()
    channel.receive(server.close())
    assert channel.receive(b"x" * 10_000) == b""
    assert channel._incoming.pending == 0


def test_content_alone_is_no_clean_end() -> None:
    channel, server = connected()
    assert channel.receive(server.send(b"last")) == b"last"
    assert channel.receive(b"") == b""
    assert not channel.closed_cleanly


@pytest.mark.parametrize("version", VERSIONS)
def test_close_says_close_notify_and_waits_for_nobody(version: ssl.TLSVersion) -> None:
    channel, server = connected(version)
    server.incoming.write(channel.close())
    # The end of the stream in good order: with a mere EOF the server's session would raise.
    assert server.session.read(10) == b""


def test_close_after_the_peers_close_is_fine() -> None:
    channel, server = connected()
    channel.receive(server.close())
    assert channel.closed_cleanly
    assert channel.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_peers_close_after_ones_own_is_a_clean_end(version: ssl.TLSVersion) -> None:
    channel, server = connected(version)
    channel.close()
    assert channel.receive(server.send(b"still") + server.close()) == b"still"
    assert channel.closed_cleanly


@pytest.mark.parametrize("stranger", [True, False])
def test_a_certificate_of_another_authority_or_host_is_refused_with_an_alert(stranger: bool) -> None:
    context = trusting(trustme.CA()) if stranger else CONTEXT
    channel = TlsChannel(context, "api.bits.bi" if stranger else "evil.example")
    server = Server()
    flight = server.handshake(channel.handshake())
    with pytest.raises(ssl.SSLCertVerificationError):
        channel.handshake(flight)
    assert not channel.established
    with pytest.raises(ssl.SSLError, match="ALERT"):
        server.handshake(channel.pending_output())


def test_what_is_not_tls_is_an_error() -> None:
    channel = TlsChannel(CONTEXT, "api.bits.bi")
    channel.handshake()
    with pytest.raises(ssl.SSLError):
        channel.handshake(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert not channel.established


def test_a_changed_record_is_an_error() -> None:
    channel, server = connected()
    record = bytearray(server.send(b"pay 10"))
    record[-1] ^= 1
    with pytest.raises(ssl.SSLError):
        channel.receive(bytes(record))
    assert channel.pending_output()
