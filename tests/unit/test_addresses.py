import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bits_auth_proxy.settings.addresses import (
    ListenAddress,
    TcpAddress,
    UnixAddress,
    is_loopback,
    parse_address,
)

PORTS = st.integers(0, 65535)
TCP = st.builds(lambda ip, port: TcpAddress(str(ip), port), st.ip_addresses(), PORTS)
UNIX = st.builds(UnixAddress, st.text("abcxyz/._- ", min_size=1, max_size=107))


@given(TCP | UNIX)
def test_an_address_reads_back_as_it_was_written(address: ListenAddress) -> None:
    assert parse_address(str(address)) == address


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        address = parse_address(text)
    except ValueError:
        return
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("text", [":8080", "*:8080"])
def test_a_missing_host_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=r"0\.0\.0\.0 and \[::\]"):
        parse_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8080",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:\u0663",
        "::1:8080",
        "[127.0.0.1]:80",
        "[::1]",
        "a.example:80",
        "unix:",
        "unix:" + "x" * 108,
        "unix:a\0b",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|bracket|must be|must have 1 to"):
        parse_address(text)


@given(st.ip_addresses(), PORTS)
def test_loopback_is_what_the_ip_address_says(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    assert is_loopback(TcpAddress(str(ip), port)) == ip.is_loopback


def test_localhost_and_unix_sockets_are_loopback_and_all_addresses_are_not() -> None:
    assert is_loopback(parse_address("localhost:80"))
    assert is_loopback(parse_address("unix:/run/bits.sock"))
    assert not is_loopback(parse_address("0.0.0.0:80"))
    assert not is_loopback(parse_address("[::]:80"))
