"""Assembly: builds everything from the settings, serves, drains, stops. The only place that joins modules."""

import asyncio
import contextlib
import gc
import logging
import random
import resource
import secrets
import signal
import socket
import ssl
from collections.abc import Iterable, Iterator
from typing import Any, Final

import structlog
from yarl import URL

from config.addresses import ListenAddress
from config.credentials import CredentialSource
from config.log_setup import Redactor
from config.settings import Settings
from proxy import __version__
from proxy.admin.app import build_app, is_loopback
from proxy.admin.health import Health
from proxy.admin.server import AdminServer
from proxy.auth.bits_oauth import BitsOAuthClient
from proxy.auth.refresher import Refresher
from proxy.clock import Clock, SystemClock
from proxy.errors import OperatorError
from proxy.forward.access import LOOPBACK_HOSTS, AccessRules, HostRule, SiteRule
from proxy.forward.context import ForwardContext
from proxy.forward.dialing import Dialer, client_context
from proxy.forward.downstream import READ_SIZE, Clients, Frontend, RequestIds
from proxy.forward.gateway import Gateway
from proxy.forward.headers import ClientAuthorization, RequestRules, ResponseRules, canonical_origin
from proxy.forward.limits import ConnectionLimit, ReplayBudget
from proxy.forward.listener import bind
from proxy.forward.pool import Pool
from proxy.tasks import TaskOwner
from proxy.telemetry import Telemetry

log = structlog.get_logger("bits_auth_proxy")

_CREDENTIALS_POLL: Final = 5.0
"""Seconds between looks at credential files; a change must be noticed within 10 s."""
_TOKEN_TIMEOUT: Final = 10.0


class Sidecar:
    """The whole proxy in one event loop."""

    def __init__(self, settings: Settings, *, redactor: Redactor, clock: Clock | None = None) -> None:
        """Build everything; nothing listens or connects yet. Raises OperatorError for unusable settings."""
        self._settings = settings
        self._redactor = redactor
        self._clock: Clock = clock or SystemClock()
        self._rng = random.SystemRandom()
        self._stopping = asyncio.Event()
        self._admin = AdminServer()
        self._sockets: list[tuple[ListenAddress, socket.socket]] = []
        self._admin_sockets: list[tuple[ListenAddress, socket.socket]] = []
        self._tasks = TaskOwner(self._crashed)
        self._build()

    # Life.

    async def start(self) -> None:
        """Bind, fetch the first token in the background, serve. Raises OperatorError when an address is taken."""
        settings = self._settings
        raise_descriptor_limit(settings.limits.max_connections)
