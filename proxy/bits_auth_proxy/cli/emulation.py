"""The emulator of the Bits API inside this process, and the settings of a proxy that forwards to it."""

import contextlib
from collections.abc import AsyncIterator

from bits_auth_proxy.assembly import bind_for, bound_address
from bits_auth_proxy.clock import SystemClock
from bits_auth_proxy.emulator.server import Emulator
from bits_auth_proxy.errors import OperatorError
from bits_auth_proxy.settings.addresses import ListenAddress, UnixAddress
from bits_auth_proxy.settings.loading import Loaded
from bits_auth_proxy.settings.model import EmulatorSettings, Settings
from bits_auth_proxy.telemetry.log import Redactor


@contextlib.asynccontextmanager
async def emulating(settings: EmulatorSettings, redactor: Redactor) -> AsyncIterator[ListenAddress]:
    """Serve the emulator; yield its address. Raises OperatorError where it can't listen."""
    if isinstance(settings.listen, UnixAddress):
        raise OperatorError(
            "BITS_EMULATOR__LISTEN: write host:port, because the proxy reaches the API over TCP"
        )
    secret = settings.client_secret.get_secret_value()
    redactor.add(secret, pinned=True)
    emulator = Emulator(
        client_id=settings.client_id,
        client_secret=secret,
        token_lifetime=settings.token_lifetime,
        token_delay=settings.token_delay,
        latency=settings.latency,
        clock=SystemClock(),
    )
    sock = bind_for("BITS_EMULATOR__LISTEN", settings.listen)
    address = bound_address(settings.listen, sock)
    try:
        await emulator.start(sock)
        yield address
    finally:
        await emulator.close()
        sock.close()


def settings_for(emulator: ListenAddress, loaded: Loaded, *, access_log: str) -> Settings:
    """Return the settings with the API's address and credentials replaced by those of the emulator.

    `access_log` applies where the user did not set one.
    """
    settings = loaded.settings
    log_is_set = loaded.origins.get("access_log", "default") != "default"
    return settings.model_copy(
        update={
            "api_url": f"http://{emulator}",
            "token_url": None,
            "client_id": settings.emulator.client_id,
            "client_secret": settings.emulator.client_secret,
            "client_id_file": None,
            "client_secret_file": None,
            "credentials_dir": None,
            "access_log": settings.access_log if log_is_set else access_log,
        }
    )
