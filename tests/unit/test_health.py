"""What the probes say, from start to drain."""

from bits_auth_proxy.admin.health import Health
from tests.support.clock import FakeClock


class Started:
    """A process whose token comes and goes as the test says."""

    def __init__(self, grace: float = 30.0) -> None:
        self.token = False
        self.clock = FakeClock()
        self.health = Health(clock=self.clock, has_token=lambda: self.token, startup_grace=grace)


def test_it_waits_for_the_first_token() -> None:
    its = Started()
    assert its.health.startup() == (False, "waiting for the first token")
    assert its.health.readiness() == (False, "waiting for the first token")
    its.token = True
    assert its.health.startup() == (True, "started")
    assert its.health.readiness() == (True, "started")


def test_once_started_the_loss_of_the_token_changes_nothing() -> None:
    its = Started()
    its.token = True
    assert its.health.readiness().ok
    its.token = False
    assert its.health.startup() == (True, "started")
    assert its.health.readiness() == (True, "started")


def test_without_a_token_start_up_is_over_after_the_grace() -> None:
    its = Started(grace=30.0)
    its.clock.advance(29.9)
    assert not its.health.startup().ok
    its.clock.advance(0.1)
    assert its.health.startup() == (True, "started without a token")
    assert its.health.readiness() == (True, "started without a token")
    its.token = True
    assert its.health.startup() == (True, "started")


def test_the_wall_clock_does_not_count() -> None:
    its = Started(grace=30.0)
    its.clock.jump_wall(3600)
    assert not its.health.startup().ok


def test_while_draining_it_is_not_ready_but_has_started() -> None:
    its = Started()
    its.token = True
    its.health.drain()
    assert its.health.readiness() == (False, "draining")
    assert its.health.startup().ok
