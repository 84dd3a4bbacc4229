"""`bits-auth-proxy demo` and `emulator`: the Bits API emulator, with or without the proxy before it."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from typing import Final

from bits_auth_proxy import sidecar
from bits_auth_proxy.assembly import bind_for, bound_address
from bits_auth_proxy.clock import SystemClock
from bits_auth_proxy.emulator.server import Emulator
from bits_auth_proxy.errors import OperatorError
from bits_auth_proxy.process import on_signals
from bits_auth_proxy.settings.addresses import ListenAddress, UnixAddress
from bits_auth_proxy.settings.credentials import CredentialSource
from bits_auth_proxy.settings.loading import Loaded
from bits_auth_proxy.settings.model import EmulatorSettings, Settings
from bits_auth_proxy.telemetry.log import Redactor

_BODY: Final = (
    '{"workflowId":"bits:workflow::8abe317f-6d54-4949-8ecd-245efb4fa05d",'
    '"countryCode":"SE","redirectUrl":"https://acme.example/done"}'
)


async def serve(
    loaded: Loaded,
    *,
    redactor: Redactor,
    say: Callable[[str], None],
    watch: Callable[[sidecar.Sidecar], None] | None = None,
) -> bool:
    """Run the emulator and a proxy before it until SIGTERM or SIGINT; tell what to try with `say`.

    `watch` shows the running proxy and its requests; without it they are logged.
    """

    def started(running: sidecar.Sidecar) -> None:
        say(_what_to_try(running, address))
        if watch is not None:
            watch(running)

    async with emulating(loaded.settings.emulator, redactor) as address:
        settings = against(address, loaded, access_log="errors" if watch else "all")
        return await sidecar.serve(
            settings,
            credentials=CredentialSource.from_settings(settings),
            redactor=redactor,
            started=started,
        )


async def serve_emulator(settings: Settings, *, redactor: Redactor, say: Callable[[str], None]) -> bool:
    """Run the emulator alone until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    with on_signals({signal.SIGTERM: stopped.set, signal.SIGINT: stopped.set}):
        async with emulating(settings.emulator, redactor) as address:
            say(
                f"The Bits API emulator is ready at http://{address}\n"
                f"Its client id is {settings.emulator.client_id!r}; "
                "the secret is BITS_EMULATOR__CLIENT_SECRET's, by default bits-demo-secret.\n"
                f"Point a proxy at it:  BITS_API_URL=http://{address} bits-auth-proxy run\n"
                f"See and set faults:   curl http://{address}/_emulator/state"
            )
            await stopped.wait()
    return True


@contextlib.asynccontextmanager
async def emulating(settings: EmulatorSettings, redactor: Redactor) -> AsyncIterator[ListenAddress]:
    """Serve the emulator; yield where."""
    if isinstance(settings.listen, UnixAddress):
        raise OperatorError("BITS_EMULATOR__LISTEN: must be host:port, the proxy reaches the API over TCP")
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


def against(address: ListenAddress, loaded: Loaded, *, access_log: str) -> Settings:
    """Return the settings turned to the emulator: its address, its credentials, another default."""
    settings = loaded.settings
    asked_for_log = loaded.origins.get("access_log", "default") != "default"
    return settings.model_copy(
        update={
            "api_url": f"http://{address}",
            "token_url": None,
            "client_id": settings.emulator.client_id,
            "client_secret": settings.emulator.client_secret,
            "client_id_file": None,
            "client_secret_file": None,
            "credentials_dir": None,
            "access_log": settings.access_log if asked_for_log else access_log,
        }
    )


def _what_to_try(running: sidecar.Sidecar, emulator: ListenAddress) -> str:
    listen = running.addresses[0]
    if isinstance(listen, UnixAddress):
        curl, origin = f"curl -s --unix-socket {listen.path} ", "http://localhost"
    else:
        # -k: the certificate of a trial.
        curl, scheme = ("curl -sk ", "https") if running.speaks_tls else ("curl -s ", "http")
        origin = f"{scheme}://localhost:{listen.port}"
    lines = [
        f"The proxy is ready at {', '.join(map(str, running.addresses))}; behind it is a Bits API emulator.",
        "",
        "Try (no token, no secret: the proxy adds what is needed):",
        f"  {curl}-X POST {origin}/v1/applications.create -H 'content-type: application/json' -d '{_BODY}'",
        f"  {curl}{origin}/oauth2/userinfo",
        "",
        "Look:",
    ]
    for admin in running.admin_addresses:
        reach = (
            f"--unix-socket {admin.path} http://localhost" if isinstance(admin, UnixAddress) else f"{admin}"
        )
        lines += [f"  open http://{admin}/ in a browser"] if not isinstance(admin, UnixAddress) else []
        lines += [f"  curl -s {reach}/metrics | grep token", f"  curl -s {reach}/status"]
    lines += [
        "Break something:",
        f"  curl -s -X POST {emulator}/_emulator/revoke",
        "",
    ]
    return "\n".join(lines)
