"""The whole proxy (in gateway mode too), from top to bottom: build, bind, run, drain.

It builds the whole proxy from its parts, with the helpers in `assembly`. It is longer than other modules
because this is the one place that joins them, and one list is easier to follow than several.
"""

import asyncio
import contextlib
import gc
import random
import secrets
import signal
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import structlog

from bits_auth_proxy import __version__
from bits_auth_proxy.admin.actions import Actions
from bits_auth_proxy.admin.app import Views, build_app
from bits_auth_proxy.admin.health import Health
from bits_auth_proxy.admin.server import MAX_CONNECTIONS, AdminServer
from bits_auth_proxy.admin.status import Status
from bits_auth_proxy.assembly import (
    access_rules,
    build_admission,
    build_dialer,
    build_oauth,
    concealed,
    listen_certificate,
    poll_certificate,
    poll_trust,
    read_in_time,
    request_rules,
    response_rules,
    trust,
)
from bits_auth_proxy.auth.awaited import AwaitedCredentials
from bits_auth_proxy.auth.bits_oauth import ClientCredentials
from bits_auth_proxy.auth.refresher import Refresher
from bits_auth_proxy.clock import Clock, SystemClock
from bits_auth_proxy.errors import OperatorError, SettingError
from bits_auth_proxy.forward.context import ForwardContext
from bits_auth_proxy.forward.downstream import READ_SIZE
from bits_auth_proxy.forward.exchange import Exchange
from bits_auth_proxy.forward.gateway import Gateway
from bits_auth_proxy.forward.inspecting import InspectedExchange
from bits_auth_proxy.forward.limits import ClientShares, ConnectionLimit
from bits_auth_proxy.forward.listener_context import Clients, ListenerContext, request_ids
from bits_auth_proxy.forward.pool import Pool
from bits_auth_proxy.forward.replay import ReplayBudget
from bits_auth_proxy.forward.write_batcher import WriteBatcher
from bits_auth_proxy.listening import ListeningSockets
from bits_auth_proxy.process import (
    client_limit,
    guard_memory,
    keep_freed_memory,
    on_signals,
    raise_descriptor_limit,
)
from bits_auth_proxy.settings.addresses import ListenAddress, TcpAddress, is_loopback
from bits_auth_proxy.settings.credentials import Credentials, CredentialsError, CredentialSource
from bits_auth_proxy.settings.disclosure import masked_query
from bits_auth_proxy.settings.model import Settings
from bits_auth_proxy.settings.permissions import mode_of
from bits_auth_proxy.settings.watching import FileWatcher, WatchedFiles
from bits_auth_proxy.tasks import TaskOwner
from bits_auth_proxy.telemetry import events
from bits_auth_proxy.telemetry.inspection import Inspection
from bits_auth_proxy.telemetry.journal import Journal
from bits_auth_proxy.telemetry.log import LEVELS, LOGGER, Redactor, get_level, json_lines
from bits_auth_proxy.telemetry.log_level import change_level
from bits_auth_proxy.telemetry.observers import Telemetry
from bits_auth_proxy.telemetry.traffic import Limits, Load
from bits_auth_proxy.threads import call_in_thread

_AWAITED_POLL: Final = 0.5
"""Seconds between two looks for credential files that are awaited."""


class Sidecar:
    """The whole proxy in one event loop: `start`, then `wait`, then `close`."""

    def __init__(
        self,
        settings: Settings,
        *,
        credentials: CredentialSource,
        redactor: Redactor,
        clock: Clock | None = None,
        neighbors: int = 0,
    ) -> None:
        """Build everything, inside a running loop; nothing listens or connects yet. Raises OperatorError.

        `neighbors` is the number of connections that the rest of the process may have.
        """
        self._settings = settings
        self._source = credentials
        self._redactor = redactor
        self._clock = clock or SystemClock()
        self._log = structlog.get_logger(LOGGER)
        self._rng = random.Random()  # noqa: S311 - for jitter
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._hurried = False
        self._admin = AdminServer()
        self._descriptors = raise_descriptor_limit()
        self._max_clients = max_clients = client_limit(
            wanted=settings.limits.max_connections,
            descriptors=self._descriptors,
            others=settings.upstream.max_connections + MAX_CONNECTIONS + neighbors,
        )
        self._sockets = ListeningSockets()
        self._journal = Journal(self._clock)
        self._lines = json_lines(self._loop.call_soon)
        self._telemetry = Telemetry(
            clock=self._clock,
            access_log=settings.access_log,
            token_status=lambda: self._refresher.status(),  # noqa: PLW0108 - built further down
            load=self._load,
            limits=Limits(
                max_clients,
                settings.upstream.max_connections,
                settings.upstream.queue_limit,
            ),
            journal=self._journal,
            call_later=self._loop.call_later,
            write_line=None if self._lines is None else self._lines.write,
        )
        # These are separate because the token must outlive the exchanges that are drained.
        self._token_tasks = TaskOwner(self._telemetry.crashed)
        self._traffic_tasks = TaskOwner(self._telemetry.crashed)
        self._trust = trust(settings)
        self._certificate = listen_certificate(settings)
        self._certificate_trust = None if self._certificate is None else self._certificate.trust
        self._oauth = build_oauth(settings, context=self._trust, clock=self._clock)
        self._refresher = self._begin_token()
        self._failure: SettingError | None = None
        self._waits: list[asyncio.TimerHandle] = []
        self._health = Health(
            clock=self._clock,
            has_token=lambda: self._refresher.current(self._clock.now()) is not None,
            startup_grace=settings.startup_grace,
        )
        self._batcher = WriteBatcher(self._loop.call_soon, self._telemetry.crashed)
        self._clients = Clients(ConnectionLimit(max_clients))
        self._pool = self._build_pool()
        self._context = self._build_context()
        self._inspection: Inspection | None = None
        if settings.inspect:
            self._inspection = Inspection(
                mask=settings.inspect_mask, redact=redactor.redact, call_soon=self._loop.call_soon
            )
        self._gateway = Gateway(
            context=self._context,
            clients=self._clients,
            tasks=self._traffic_tasks,
            loop=self._loop,
            make_exchange=partial(InspectedExchange, self._inspection.keep) if self._inspection else Exchange,
        )
        self._watcher = self._build_watcher()
        self._status = Status(
            api_url=settings.api_url,
            clock=self._clock,
            health=self._health,
            token=lambda: self._refresher.status(),  # noqa: PLW0108 - replaced when awaited credentials come
            load=self._load,
            listening=self._sockets,
            numbers=self._telemetry,
            history=self._journal,
            log_level=get_level,
            inspecting=self._inspection is not None,
        )

    @property
    def addresses(self) -> list[ListenAddress]:
        """The addresses of the listeners for clients, with the actual ports; empty before `start`."""
        return self._sockets.addresses

    @property
    def admin_addresses(self) -> list[ListenAddress]:
        """The addresses of the admin listeners, with the actual ports; empty before `start`."""
        return self._sockets.admin_addresses

    @property
    def speaks_tls(self) -> bool:
        """Whether clients must speak TLS on the TCP addresses."""
        return self._certificate is not None

    def _begin_token(self) -> Refresher | AwaitedCredentials:
        """Return what keeps the token, or what stands in while its credentials are not there."""
        try:
            credentials = read_in_time(self._source)
        except CredentialsError as error:
            if not self._settings.credentials_wait or not self._source.watched:
                raise
            return AwaitedCredentials(clock=self._clock, reason=str(error))
        return self._build_refresher(credentials)

    def _build_refresher(self, credentials: Credentials) -> Refresher:
        return Refresher(
            endpoint=self._oauth,
            credentials=self._use(credentials),
            clock=self._clock,
            rng=self._rng,
            tasks=self._token_tasks,
            call_later=self._loop.call_later,
            patience=self._settings.token_wait,
            conceal=self._redactor.add,
            look=self.reload,
            observer=self._telemetry,
            expected_customer=self._settings.expected_customer_id,
            allow_customer_change=self._settings.allow_customer_change,
        )

    def _build_pool(self) -> Pool:
        settings = self._settings
        upstream = settings.upstream
        return Pool(
            connector=build_dialer(
                settings,
                context=self._trust,
                clock=self._clock,
                batcher=self._batcher,
                redactor=self._redactor,
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
        return ForwardContext(
            clock=self._clock,
            tokens=self._refresher,
            pool=self._pool,
            observer=self._telemetry,
            batcher=self._batcher,
            request_rules=request_rules(settings),
            response_rules=response_rules(settings),
            replay_budget=ReplayBudget(settings.limits.replay_total),
            max_replay_body=settings.limits.replay_body,
            token_wait=settings.token_wait,
            queue_timeout=settings.upstream.queue_timeout,
            # A second attempt with other addresses may follow the first.
            connect_patience=2 * settings.upstream.connect_timeout,
            response_timeout=settings.upstream.response_timeout,
            idle_stream_timeout=settings.upstream.idle_stream_timeout,
        )

    def _build_watcher(self) -> FileWatcher:
        files: list[WatchedFiles[Any]] = []
        if self._certificate is not None:
            files.append(
                WatchedFiles(
                    name="BITS_LISTEN_TLS__CERT, __KEY, __CLIENT_CA, __CRL: the files",
                    poll=partial(poll_certificate, self._certificate),
                    on_read=self._certificate_read,
                    on_unusable=lambda error: self._telemetry.certificate_unusable(str(error)),
                )
            )
        if self._trust is not None and self._trust.watched:
            files.append(
                WatchedFiles(
                    name="BITS_UPSTREAM__CA_FILE, __CLIENT_CERT, __CLIENT_KEY: the files",
                    poll=partial(poll_trust, self._trust),
                    on_read=self._trust_read,
                    on_unusable=lambda error: self._telemetry.upstream_certificate_unusable(str(error)),
                )
            )
        if self._source.watched:
            files.append(
                WatchedFiles(
                    name=self._source.name,
                    poll=self._poll_credentials,
                    on_read=self._credentials_read,
                    on_unusable=self._credentials_unreadable,
                )
            )
        return FileWatcher(
            files,
            call_later=self._loop.call_later,
            read=partial(call_in_thread, name="files"),
            on_crash=self._telemetry.crashed,
        )

    # Bind and run.

    async def start(self) -> None:
        """Bind, request the first token, serve. Raises OperatorError when an address can't be bound."""
        settings = self._settings
        self._loop.set_exception_handler(self._loop_exception)
        self._sockets.bind(settings)
        self._refresher.start()
        if isinstance(self._refresher, AwaitedCredentials):
            self._await_credentials(self._refresher)
        self._gateway.start()
        await self._serve_admin()
        self._serve()
        self._warn_of_exposed_files()
        self._watcher.start()
        self._warn_of_lowered_limit()
        if self._inspection is not None:
            self._log.warning(events.INSPECTING.name, mask=",".join(settings.inspect_mask))
        # Everything that exists by now stays, so the collector need not examine it again and again.
        gc.collect()
        gc.freeze()
        self._log.info(
            events.STARTED.name,
            version=__version__,
            listen=[str(address) for address in self.addresses],
            tls=self.speaks_tls,
            admin=[str(address) for address in self.admin_addresses],
            api=settings.api_url,
            token_url=masked_query(settings.effective_token_url),
        )

    def _warn_of_lowered_limit(self) -> None:
        wanted = self._settings.limits.max_connections
        if self._max_clients < wanted:
            self._log.warning(
                events.CLIENT_LIMIT_LOWERED.name,
                limit=self._max_clients,
                wanted=wanted,
                descriptors=self._descriptors,
            )

    async def _serve_admin(self) -> None:
        views = Views(
            metrics=self._telemetry.scrape,
            status=self._status.status,
            activity=self.activity,
            inspected=self._inspection.find if self._inspection else None,
        )
        actions = Actions(
            refresh=lambda: self._refresher.refresh(),  # noqa: PLW0108 - see __init__
            levels=LEVELS,
            get_level=get_level,
            set_level=change_level,
        )
        for address, sock in self._sockets.admin:
            loopback = is_loopback(address)
            app = build_app(health=self._health, views=views, actions=actions, loopback=loopback)
            await self._admin.serve(sock, app)

    def _serve(self) -> None:
        settings = self._settings
        limits = settings.limits
        access = access_rules(settings)
        ids = request_ids(secrets.token_hex(6))
        read_buffer = memoryview(bytearray(READ_SIZE))
        shares = ClientShares(limits.per_client) if limits.per_client else None
        for address, sock in self._sockets.clients:
            certificate = self._certificate if isinstance(address, TcpAddress) else None
            listener_context = ListenerContext(
                context=self._context,
                scheme=b"http" if certificate is None else b"https",
                admission=build_admission(
                    settings, address, access=access, request_rules=self._context.request_rules
                ),
                request_ids=ids,
                clients=self._clients,
                # The clients of a Unix socket have no addresses.
                shares=shares if isinstance(address, TcpAddress) else None,
                read_buffer=read_buffer,
                max_line=limits.request_line,
                max_head=limits.head,
                max_fields=limits.fields,
                head_timeout=limits.head_timeout,
                keepalive_timeout=limits.keepalive_timeout,
            )
            if settings.allowed_hosts is None and not is_loopback(address):
                self._log.warning(events.ALLOWED_HOSTS_UNSET.name, listen=str(address))
            self._gateway.listen(sock, listener_context, certificate)

    def reload(self) -> None:
        """Re-read all watched files immediately."""
        self._watcher.look()

    def activity(self) -> dict[str, Any]:
        """Return the present state and the recent events, ready for JSON and without secrets."""
        return self._status.activity()

    # Drain and end.

    def stop(self) -> None:
        """Begin to drain. The second call ends the drain immediately."""
        if self._stopping.is_set():
            self._hurried = True
            self._gateway.hurry()
        self._stopping.set()

    async def wait(self) -> bool:
        """Serve until `stop`, then drain. Returns whether the drain ended without a second `stop`.

        Raises SettingError when the credential files have not come in time.
        """
        await self._stopping.wait()
        if self._failure is not None:
            raise self._failure
        settings = self._settings
        self._health.drain()
        self._log.info(events.DRAINING.name, clients=self._gateway.client_connections)
        cut = await self._gateway.drain(delay=settings.drain_delay, timeout=settings.drain_timeout)
        self._log.info(events.STOPPED.name, cut=cut)
        return not self._hurried

    async def close(self) -> None:
        """End everything that is still running. Can be called at any time after construction."""
        self._watcher.close()
        self._end_waits()
        self._refresher.close()
        await self._gateway.close()
        await self._token_tasks.close()
        await self._oauth.close()
        await self._admin.close()
        self._telemetry.close()
        if self._lines is not None:
            self._lines.flush()
        self._sockets.close()
        self._loop.set_exception_handler(None)

    # Callbacks of the parts.

    def _certificate_read(self, changed: bool) -> None:  # noqa: FBT001 - a watcher's callback
        if changed and self._certificate is not None:
            self._telemetry.certificate_changed()
            if self._certificate.trust != self._certificate_trust:
                self._certificate_trust = self._certificate.trust
                self._gateway.retire()

    def _trust_read(self, changed: bool) -> None:  # noqa: FBT001 - a watcher's callback
        if changed:
            self._telemetry.upstream_certificate_changed()

    def _await_credentials(self, awaited: AwaitedCredentials) -> None:
        self._health.hold("waiting for the credential files")
        self._log.warning(events.CREDENTIALS_AWAITED.name, detail=awaited.reason)
        self._waits = [
            self._loop.call_later(self._settings.credentials_wait, self._give_up, awaited),
            self._loop.call_later(_AWAITED_POLL, self._look_again),
        ]

    def _look_again(self) -> None:
        self._waits[-1] = self._loop.call_later(_AWAITED_POLL, self._look_again)
        self._watcher.look()

    def _give_up(self, awaited: AwaitedCredentials) -> None:
        text = f"not there within {self._settings.credentials_wait:g} s ({awaited.reason})"
        self._failure = CredentialsError(f"{self._source.name}: {text}")
        self._stopping.set()

    def _end_waits(self) -> None:
        for timer in self._waits:
            timer.cancel()
        self._waits = []

    def _warn_of_exposed_files(self) -> None:
        for path in self._source.exposed_files():
            self._log.warning(events.CREDENTIALS_EXPOSED.name, file=str(path), mode=mode_of(path))

    def _poll_credentials(self) -> Credentials | None:
        # The read at the start may have gone on after it was given up, so that the pair seems known.
        awaited = isinstance(self._refresher, AwaitedCredentials)
        return self._source.read() if awaited else self._source.poll()

    def _credentials_unreadable(self, error: OperatorError) -> None:
        awaited = self._refresher
        if not isinstance(awaited, AwaitedCredentials):
            self._telemetry.credentials_unreadable(str(error))
        elif awaited.reason != str(error):
            awaited.reason = str(error)
            self._log.warning(events.CREDENTIALS_AWAITED.name, detail=awaited.reason)

    def _credentials_read(self, credentials: Credentials | None) -> None:
        if isinstance(self._refresher, AwaitedCredentials):
            if credentials is not None and not self._stopping.is_set():
                self._end_waits()
                self._refresher = self._context.tokens = self._build_refresher(credentials)
                self._warn_of_exposed_files()
                self._refresher.start()
                self._health.release()
            return
        self._telemetry.credentials_read(changed=credentials is not None)
        if credentials is not None:
            self._refresher.change_credentials(self._use(credentials))

    def _use(self, credentials: Credentials) -> ClientCredentials:
        ready = concealed(credentials, self._redactor)
        for oddity in self._source.oddities(credentials):
            self._log.warning(events.CREDENTIALS_UNUSUAL.name, detail=oddity)
        return ready

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
    neighbors: int = 0,
) -> bool:
    """Run a sidecar until SIGTERM or SIGINT. Returns whether it drained without being cut short.

    `started` is called as soon as the sidecar serves. For `neighbors`, see `Sidecar`.
    """
    keep_freed_memory()
    guard_memory(core_dumps=settings.allow_core_dumps, debuggers=settings.allow_debuggers)
    sidecar = Sidecar(settings, credentials=credentials, redactor=redactor, neighbors=neighbors)
    handlers = {signal.SIGTERM: sidecar.stop, signal.SIGINT: sidecar.stop, signal.SIGHUP: sidecar.reload}
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(on_signals(handlers))
        stack.push_async_callback(sidecar.close)
        await sidecar.start()
        if started is not None:
            started(sidecar)
        return await sidecar.wait()
