"""What all exchanges share."""

from typing import Final, final

from bits_auth_proxy.auth.tokens import TokenSource
from bits_auth_proxy.clock import Clock
from bits_auth_proxy.forward.headers import RequestRules, ResponseRules
from bits_auth_proxy.forward.pool import Pool
from bits_auth_proxy.forward.ports import TrafficObserver
from bits_auth_proxy.forward.replay import ReplayBudget
from bits_auth_proxy.forward.write_batcher import WriteBatcher
from bits_auth_proxy.http1.date import DateField


@final
class ForwardContext:
    """What all exchanges share. Durations are in seconds, sizes in bytes."""

    __slots__ = (
        "batcher",
        "clock",
        "connect_patience",
        "date",
        "idle_stream_timeout",
        "max_replay_body",
        "now",
        "observer",
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
        batcher: WriteBatcher,
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
        self.tokens = tokens
        self.pool: Final = pool
        self.observer: Final = observer
        self.batcher: Final = batcher
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
        """The ticker's last reading of the clock: exact enough for deadlines, and free for every chunk."""
        self.date: Final = DateField(clock.wall())
        """The Date of responses, which the ticker keeps."""
