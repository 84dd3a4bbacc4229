"""What all exchanges share."""

from typing import Final, final

from proxy.auth.tokens import TokenSource
from proxy.clock import Clock
from proxy.forward.headers import RequestRules, ResponseRules
from proxy.forward.limits import ReplayBudget
from proxy.forward.observer import TrafficObserver
from proxy.forward.outbox import Outbox
from proxy.forward.pool import Pool


@final
class ForwardContext:
    """What all exchanges share. Durations in seconds, sizes in bytes."""

    __slots__ = (
        "clock",
        "connect_patience",
        "idle_stream_timeout",
        "max_replay_body",
        "now",
        "observer",
        "outbox",
        "pool",
        "queue_timeout",
        "replay_budget",
        "request_rules",
        "response_rules",
        "response_timeout",
        "token_wait",
        "tokens",
    )

    def __init__(
        self,
        *,
        clock: Clock,
        tokens: TokenSource,
        pool: Pool,
        observer: TrafficObserver,
        outbox: Outbox,
        request_rules: RequestRules,
        response_rules: ResponseRules,
        replay_budget: ReplayBudget,
        max_replay_body: int,
        token_wait: float,
        queue_timeout: float,
        connect_patience: float,
        response_timeout: float,
        idle_stream_timeout: float,
    ) -> None:
        self.clock: Final = clock
        self.tokens: Final = tokens
        self.pool: Final = pool
        self.observer: Final = observer
        self.outbox: Final = outbox
        self.request_rules: Final = request_rules
        self.response_rules: Final = response_rules
        self.replay_budget: Final = replay_budget
        self.max_replay_body: Final = max_replay_body
        self.token_wait: Final = token_wait
        self.queue_timeout: Final = queue_timeout
        self.connect_patience: Final = connect_patience
        """How much longer than `queue_timeout` to wait while connections are being made."""
        self.response_timeout: Final = response_timeout
        self.idle_stream_timeout: Final = idle_stream_timeout
        self.now = clock.now()
        """The ticker's last reading: exact enough for deadlines, free of cost for every chunk."""
