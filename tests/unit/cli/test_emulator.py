"""What `bits-auth-proxy emulator` prints."""

from bits_auth_proxy.cli.emulator import instructions
from bits_auth_proxy.settings.addresses import TcpAddress


def test_it_says_where_the_emulator_is_and_how_to_use_it() -> None:
    said = instructions(TcpAddress("127.0.0.1", 8090), client_id="acme")
    assert said.startswith("The emulator of the Bits API is ready at http://127.0.0.1:8090\n")
    assert "'acme'" in said
    assert "BITS_API_URL=http://127.0.0.1:8090 bits-auth-proxy run" in said
    assert "curl http://127.0.0.1:8090/_emulator/state" in said
