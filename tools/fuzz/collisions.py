"""Lets a client and the API act in one turn of the event loop, which they share with the proxy.

So the proxy finds both sockets readable at once, in either order.
"""

from collections import deque
from collections.abc import Callable

from tools.fuzz.cases import Case

Act = Callable[[], None]


class Collisions:
    """What one side will do as soon as the other side acts."""

    def __init__(self) -> None:
        self.acts = 0
        """How often both sides acted at once."""
        self._answered: set[bytes] = set()
        self._ends: dict[bytes, Act] = {}
        self._late: deque[tuple[int, Act]] = deque(maxlen=100)
        self.is_idle: Callable[[int], bool] = lambda _: False
        """Whether the proxy's connection from this port is idle: what the API sends then is no response."""

    def end_with_answer(self, case: Case, end: Act) -> None:
        """Let the client of `case` end its connection when the API responds."""
        self._ends[case.digits] = end

    def act_with_request(self, port: int, act: Act) -> None:
        """Let the API act on the connection from `port`, if it is idle when any client sends a request."""
        self._late.append((port, act))

    def send(self, case: Case, send: Act) -> None:
        """Let the client of `case` send, together with what waits for a request."""
        late = None
        while case.api_first is not None and late is None and self._late:
            port, act = self._late.popleft()
            late = act if self.is_idle(port) else None
        self.acts += late is not None
        _together(late, send, first=case.api_first is True)

    def answer(self, case: Case, answer: Act) -> None:
        """Let the API respond to `case`, together with the end of its client."""
        self._answered.add(case.digits)
        end = self._ends.pop(case.digits, None)
        self.acts += end is not None
        _together(answer, end, first=case.api_first is True)

    def forget(self, case: Case) -> bool:
        """Forget a case whose client has left; return whether the API has responded to it."""
        self._ends.pop(case.digits, None)
        answered = case.digits in self._answered
        self._answered.discard(case.digits)
        return answered


def _together(api: Act | None, client: Act | None, *, first: bool) -> None:
    for act in (api, client) if first else (client, api):
        if act is not None:
            act()
