"""What `bits-auth-proxy demo` prints, for each kind of listener."""

from bits_auth_proxy.cli.demo import instructions
from bits_auth_proxy.settings.addresses import ListenAddress, TcpAddress, UnixAddress

EMULATOR = TcpAddress("127.0.0.1", 8090)


def text(listen: ListenAddress, *admin: ListenAddress, tls: bool = False) -> str:
    return instructions(listen=[listen], admin=admin, emulator=EMULATOR, tls=tls)


def test_over_tcp() -> None:
    said = text(TcpAddress("127.0.0.1", 8080), TcpAddress("127.0.0.1", 9090))
    assert said.startswith("The proxy is ready at 127.0.0.1:8080. ")
    assert "  curl -s -X POST http://localhost:8080/v1/applications.create -H " in said
    assert "  curl -s http://localhost:8080/oauth2/userinfo\n" in said
    assert "http://127.0.0.1:9090/ in a browser" in said
    assert "  curl -s 127.0.0.1:9090/status\n" in said
    assert said.endswith("  curl -s -X POST 127.0.0.1:8090/_emulator/revoke\n")


def test_over_https_curl_does_not_verify_the_certificate() -> None:
    assert "  curl -sk https://localhost:8080/oauth2/userinfo\n" in text(TcpAddress("::1", 8080), tls=True)


def test_over_unix_sockets_there_is_no_page_to_open() -> None:
    said = text(UnixAddress("/run/bits.sock"), UnixAddress("/run/admin.sock"))
    assert "  curl -s --unix-socket /run/bits.sock http://localhost/oauth2/userinfo\n" in said
    assert "  curl -s --unix-socket /run/admin.sock http://localhost/status\n" in said
    assert "browser" not in said


def test_without_an_admin_listener() -> None:
    assert "/status" not in text(TcpAddress("127.0.0.1", 8080))
