"""The whole proxy: puts the parts together, serves, drains, stops. The only place that joins modules."""

import asyncio
import contextlib
import errno
import gc
import random
import secrets
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
from yarl import URL

from bits_auth_proxy import __version__
from bits_auth_proxy.admin.actions import Actions
from bits_auth_proxy.admin.app import build_app
from bits_auth_proxy.admin.health import Health
from bits_auth_proxy.admin.server import AdminServer
from bits_auth_proxy.assembly import (
    allowed_hosts,
    api_origin,
    bind_for,
    bound_address,
    build_oauth,
    certificate_fault,
    concealed,
    egress_proxy,
    listen_certificate,
    trust,
)
from bits_auth_proxy.auth.refresher import Refresher
from bits_auth_proxy.clock import Clock, SystemClock
from bits_auth_proxy.errors import OperatorError
from bits_auth_proxy.forward.access import AccessRules, HostRule, SiteRule
from bits_auth_proxy.forward.admission import Admission
from bits_auth_proxy.forward.certificates import CertificateError
from bits_auth_proxy.forward.context import ForwardContext
from bits_auth_proxy.forward.dialing import Dialer
from bits_auth_proxy.forward.downstream import READ_SIZE
from bits_auth_proxy.forward.exchange import Exchange
from bits_auth_proxy.forward.gateway import Gateway
from bits_auth_proxy.forward.headers import ClientAuthorization, RequestRules, ResponseRules, canonical_origin
from bits_auth_proxy.forward.inspecting import InspectedExchange
from bits_auth_proxy.forward.limits import ConnectionLimit
from bits_auth_proxy.forward.listener_context import Clients, ListenerContext, request_ids
from bits_auth_proxy.forward.pool import Pool
from bits_auth_proxy.forward.replay import ReplayBudget
from bits_auth_proxy.forward.write_batcher import WriteBatcher
from bits_auth_proxy.process import guard_memory, keep_freed_memory, on_signals, raise_descriptor_limit
from bits_auth_proxy.settings.addresses import ListenAddress, TcpAddress, UnixAddress, is_loopback
from bits_auth_proxy.settings.credentials import CredentialsError, CredentialSource
from bits_auth_proxy.settings.model import Settings
from bits_auth_proxy.tasks import TaskOwner
from bits_auth_proxy.telemetry import events
from bits_auth_proxy.telemetry.inspection import Inspection
from bits_auth_proxy.telemetry.journal import Journal
from bits_auth_proxy.telemetry.log import LEVELS, LOGGER, Redactor, get_level, json_lines, set_level
from bits_auth_proxy.telemetry.observers import Telemetry
from bits_auth_proxy.telemetry.traffic import Limits, Load

if TYPE_CHECKING:
    import socket

FILES_POLL: Final = 5.0
"""Seconds between looks at the files that may change; that must be noticed within 10 s."""
_DEFAULT_LISTEN: Final = (TcpAddress("127.0.0.1", 8080), TcpAddress("::1", 8080))
_NO_IPV6: Final = frozenset((errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT))


class Sidecar:
    """The whole proxy in one event loop: `start`, then `wait`, then `close`."""

    def __init__(
        self,
        settings: Settings,
        *,
        credentials: CredentialSource,
        redactor: Redactor,
        clock: Clock | None = None,
    ) -> None:
        """Build everything inside a running loop; nothing listens or connects yet. Raises OperatorError."""
        self._settings = settings
        self._source = credentials
        self._redactor = redactor
        self._clock = clock or SystemClock()
        self._log = structlog.get_logger(LOGGER)
        self._rng = random.Random()  # noqa: S311 - for jitter
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._hurried = False
        self._poll_timer: asyncio.TimerHandle | None = None
        self._admin = AdminServer()
        self._sockets: list[tuple[ListenAddress, socket.socket]] = []
        self._admin_sockets: list[tuple[ListenAddress, socket.socket]] = []
        self._journal = Journal(self._clock)
        self.addresses: list[ListenAddress] = []
        """Where clients are served since `start`; ports are the real ones."""
        self.admin_addresses: list[ListenAddress] = []
        """Where probes, metrics and the page are."""
        self._lines = json_lines(self._loop.call_soon)
        self._telemetry = Telemetry(
            clock=self._clock,
            access_log=settings.access_log,
            token_status=lambda: self._refresher.status(),  # noqa: PLW0108 - made further down
            load=self._load,
            limits=Limits(
                settings.limits.max_connections,
                settings.upstream.max_connections,
                settings.upstream.queue_limit,
            ),
            journal=self._journal,
            call_later=self._loop.call_later,
            write_line=None if self._lines is None else self._lines.write,
        )
        # Apart, because the token must outlive the exchanges that are drained.
        self._token_tasks = TaskOwner(self._telemetry.crashed)
        self._traffic_tasks = TaskOwner(self._telemetry.crashed)
        self._trust = trust(settings)
        self._certificate = listen_certificate(settings)
        self._oauth = build_oauth(settings, context=self._trust, clock=self._clock)
        self._refresher = Refresher(
            endpoint=self._oauth,
            credentials=concealed(credentials.read(), redactor),
            clock=self._clock,
            rng=self._rng,
            tasks=self._token_tasks,
            call_later=self._loop.call_later,
            conceal=redactor.add,
            observer=self._telemetry,
        )
        self._health = Health(
            clock=self._clock,
            has_token=lambda: self._refresher.current(self._clock.now()) is not None,
            startup_grace=settings.startup_grace,
        )
        self._batcher = WriteBatcher(self._loop.call_soon)
        self._clients = Clients(ConnectionLimit(settings.limits.max_connections))
        self._pool = self._build_pool()
        self._context = self._build_context()
        self._inspection: Inspection | None = None
        if settings.inspect:
            self._inspection = Inspection(mask=settings.inspect_mask, redact=redactor.redact)
        self._gateway = Gateway(
            context=self._context,
            clients=self._clients,
            tasks=self._traffic_tasks,
            loop=self._loop,
            make_exchange=partial(InspectedExchange, self._inspection.keep) if self._inspection else Exchange,
        )

    @property
    def speaks_tls(self) -> bool:
        """Whether the TCP addresses are TLS."""
        return self._certificate is not None

    # Life.

    async def start(self) -> None:
        """Bind, ask for the first token, serve. Raises OperatorError when an address can't be had."""
        settings = self._settings
        raise_descriptor_limit(settings.limits.max_connections + settings.upstream.max_connections)
        self._loop.set_exception_handler(self._loop_exception)
        self._bind()
        self._refresher.start()
        self._gateway.start()
        actions = Actions(
            refresh=self._refresher.refresh, levels=LEVELS, get_level=get_level, set_level=self._set_log_level
        )
        for address, sock in self._admin_sockets:
            app = build_app(
                health=self._health,
                metrics=self._telemetry.render,
                status=lambda: {**self._status(), "metrics": self._telemetry.numbers()},
                activity=self.activity,
                inspected=self._inspection.find if self._inspection else None,
                actions=actions,
                loopback=is_loopback(address),
            )
            await self._admin.serve(sock, app)
        self._serve()
        self._watch_files()
        if self._inspection is not None:
            self._log.warning(events.INSPECTING.name, mask=",".join(settings.inspect_mask))
        # What is there now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        self._log.info(
            events.STARTED.name,
            version=__version__,
            listen=[str(address) for address in self.addresses],
            tls=self.speaks_tls,
            admin=[str(address) for address in self.admin_addresses],
            api=settings.api_url,
        )

    def stop(self) -> None:
        """Begin to drain; called again, end at once."""
        if self._stopping.is_set():
            self._hurried = True
            self._gateway.hurry()
        self._stopping.set()

    def reload(self) -> None:
        """Look at the files of the credentials and of the listener's certificate now."""
        self._reload_certificate()
        try:
            credentials = self._source.poll()
        except CredentialsError as error:
            self._telemetry.credentials_unreadable(str(error))
            return
        except Exception as error:  # noqa: BLE001 - the token in hand is not to suffer
            self._telemetry.crashed(error)
            return
        self._telemetry.credentials_read(changed=credentials is not None)
        if credentials is not None:
            self._refresher.change_credentials(concealed(credentials, self._redactor))

    async def wait(self) -> bool:
        """Serve until `stop`, then drain. Returns whether nobody cut that short by a second `stop`."""
        await self._stopping.wait()
        settings = self._settings
        self._health.drain()
        self._log.info(events.DRAINING.name, clients=self._gateway.client_connections)
        cut = await self._gateway.drain(delay=settings.drain_delay, timeout=settings.drain_timeout)
        self._log.info(events.STOPPED.name, cut=cut)
        return not self._hurried

    async def close(self) -> None:
        """Stop whatever still runs. Fine at any point of the life."""
        if self._poll_timer is not None:
            self._poll_timer.cancel()
        self._refresher.close()
        await self._gateway.close()
        await self._token_tasks.close()
        await self._oauth.close()
        await self._admin.close()
        self._telemetry.close()
        if self._lines is not None:
            self._lines.flush()
        self._close_sockets()
        self._loop.set_exception_handler(None)

    # Building.

    def _build_pool(self) -> Pool:
        settings = self._settings
        upstream = settings.upstream
        api = URL(settings.api_url)
        return Pool(
            connector=Dialer(
                host=api.host or "",
                port=api.port or 0,
                context=self._trust if api.scheme == "https" else None,
                timeout=upstream.connect_timeout,
                clock=self._clock,
                batcher=self._batcher,
                proxy=egress_proxy(settings, self._redactor),
            ),
            clock=self._clock,
            rng=self._rng,
            tasks=self._traffic_tasks,
            observer=self._telemetry,
            max_connections=upstream.max_connections,
            queue_limit=upstream.queue_limit,
            idle_timeout=upstream.idle_timeout,
            max_age=upstream.max_age,
            warm_connections=upstream.warm_connections,
            warm_for=upstream.warm_for,
        )

    def _build_context(self) -> ForwardContext:
        settings = self._settings
        scheme, authority = api_origin(settings)
        return ForwardContext(
            clock=self._clock,
            tokens=self._refresher,
            pool=self._pool,
            observer=self._telemetry,
            batcher=self._batcher,
            request_rules=RequestRules(
                authority=authority,
                # Told apart from other instances, so that only a true loop looks like one.
                pseudonym=b"bits-auth-proxy-%b" % secrets.token_hex(4).encode(),
                authorization=ClientAuthorization(settings.client_authorization),
                forwarded=settings.forwarded_headers,
            ),
            response_rules=ResponseRules(origin=canonical_origin(scheme, authority)),
            replay_budget=ReplayBudget(settings.limits.replay_total),
            max_replay_body=settings.limits.replay_body,
            token_wait=settings.token_wait,
            queue_timeout=settings.upstream.queue_timeout,
            # A second attempt with other addresses may follow the first.
            connect_patience=2 * settings.upstream.connect_timeout,
            response_timeout=settings.upstream.response_timeout,
            idle_stream_timeout=settings.upstream.idle_stream_timeout,
        )

    def _serve(self) -> None:
        settings = self._settings
        limits = settings.limits
        access = AccessRules(allow=settings.allow, safe_operations=settings.safe_operations)
        ids = request_ids(secrets.token_hex(6))
        read_buffer = memoryview(bytearray(READ_SIZE))
        for address, sock in self._sockets:
            certificate = self._certificate if isinstance(address, TcpAddress) else None
            listener_context = ListenerContext(
                context=self._context,
                scheme=b"http" if certificate is None else b"https",
                admission=Admission(
                    access=access,
                    host_rule=HostRule(
                        allowed=allowed_hosts(settings, address), upstream=api_origin(settings)[1]
                    ),
                    site_rule=SiteRule(allowed_origins=settings.allowed_origins),
                    request_rules=self._context.request_rules,
                    max_body=settings.max_body_bytes,
                ),
                request_ids=ids,
                clients=self._clients,
                read_buffer=read_buffer,
                max_line=limits.request_line,
                max_head=limits.head,
                max_fields=limits.fields,
                head_timeout=limits.head_timeout,
                keepalive_timeout=limits.keepalive_timeout,
            )
            self._gateway.listen(sock, listener_context, certificate)

    def _bind(self) -> None:
        settings = self._settings
        for address in settings.listen or _DEFAULT_LISTEN:
            try:
                sock = bind_for("BITS_LISTEN", address, settings.socket_mode)
            except OperatorError as error:
                cause = error.__cause__
                if settings.listen is None and isinstance(cause, OSError) and cause.errno in _NO_IPV6:
                    continue
                raise
            self._sockets.append((address, sock))
        for address in settings.admin_listen:
            self._admin_sockets.append(
                (address, bind_for("BITS_ADMIN_LISTEN", address, settings.socket_mode))
            )
        self.addresses = [bound_address(address, sock) for address, sock in self._sockets]
        self.admin_addresses = [bound_address(address, sock) for address, sock in self._admin_sockets]

    def _close_sockets(self) -> None:
        for _, sock in (*self._sockets, *self._admin_sockets):
            sock.close()
        for address, _ in self._admin_sockets:
            if isinstance(address, UnixAddress):
                Path(address.path).unlink(missing_ok=True)

    # Files that change.

    def _watch_files(self) -> None:
        for path in self._source.exposed_files():
            self._log.warning(events.CREDENTIALS_EXPOSED.name, file=str(path))
        if self._source.watched or self._certificate is not None:
            self._poll_timer = self._loop.call_later(FILES_POLL, self._poll_files)

    def _poll_files(self) -> None:
        # First of all: whatever happens below, there is a next time.
        self._poll_timer = self._loop.call_later(FILES_POLL, self._poll_files)
        self.reload()

    def _reload_certificate(self) -> None:
        try:
            if self._certificate is not None and self._certificate.poll():
                self._telemetry.certificate_changed()
        except CertificateError as error:
            self._telemetry.certificate_unusable(certificate_fault(error))

    # What is told, and how much.

    def _set_log_level(self, level: str) -> None:
        before = get_level()
        # Told while the lower of the two holds.
        set_level(min(before, level, key=LEVELS.index))
        self._log.warning(events.LOG_LEVEL_CHANGED.name, before=before, now=level)
        set_level(level)

    def activity(self) -> dict[str, Any]:
        """Return how the proxy does and what happened lately, the newest first: JSON-ready, no secrets."""
        return {
            "timestamp_seconds": self._clock.wall(),
            "listen": [str(address) for address in self.addresses],
            "admin": [str(address) for address in self.admin_addresses],
            **self._status(),
            "log_level": get_level(),
            "inspecting": self._inspection is not None,
            "totals": self._telemetry.totals(),
            "exchanges": self._journal.exchanges(),
            "rejections": self._journal.rejections(),
            "refreshes": self._journal.refreshes(),
        }

    def _status(self) -> dict[str, Any]:
        status = self._refresher.status()
        token = status.token
        return {
            "version": __version__,
            "ready": self._health.readiness()._asdict(),
            "api": self._settings.api_url,
            "token": {
                "state": status.state.value,
                "fingerprint": token.fingerprint if token else None,
                "scope": token.scope if token else None,
                "lifetime_seconds": token.lifetime if token else None,
                "issued_timestamp_seconds": token.issued_wall if token else None,
                "expires_timestamp_seconds": status.expires,
                "next_refresh_timestamp_seconds": status.next_refresh,
                "refresh_in_flight": status.in_flight,
                "consecutive_failures": status.consecutive_failures,
                "credentials_refused": status.permanent,
                "last_error": status.last_error,
            },
            "clients": self._gateway.client_connections,
            "upstream_connections": self._pool.counts(),
        }

    def _load(self) -> Load:
        return Load(self._gateway.client_connections, self._pool.counts(), self._pool.queued)

    def _loop_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:  # noqa: ARG002
        error = context.get("exception")
        self._telemetry.crashed(error if error is not None else RuntimeError(context.get("message")))


async def serve(
    settings: Settings,
    *,
    credentials: CredentialSource,
    redactor: Redactor,
    started: Callable[[Sidecar], None] | None = None,
) -> bool:
    """Run a sidecar until SIGTERM or SIGINT. Returns whether it came to a clean end.

    `started` is called when it serves.
    """
    keep_freed_memory()
    guard_memory(core_dumps=settings.allow_core_dumps, debuggers=settings.allow_debuggers)
    sidecar = Sidecar(settings, credentials=credentials, redactor=redactor)
    handlers = {signal.SIGTERM: sidecar.stop, signal.SIGINT: sidecar.stop, signal.SIGHUP: sidecar.reload}
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(sidecar.close)
        stack.enter_context(on_signals(handlers))
        await sidecar.start()
        if started is not None:
            started(sidecar)
        return await sidecar.wait()
