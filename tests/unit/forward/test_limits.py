"""The limit of connections holds, and places come back."""

from bits_auth_proxy.forward.limits import ConnectionLimit


def test_places_are_taken_until_none_is_left_and_come_back() -> None:
    limit = ConnectionLimit(2)
    assert [limit.take() for _ in range(3)] == [True, True, False]
    limit.give()
    assert [limit.take() for _ in range(2)] == [True, False]


def test_who_waits_is_woken_once_and_may_wait_again() -> None:
    limit = ConnectionLimit(1)
    woken: list[bool] = []

    def try_again() -> None:
        woken.append(limit.take())
        if not woken[-1]:
            limit.wake_when_free(try_again)

    assert limit.take()
    limit.wake_when_free(try_again)
    limit.wake_when_free(try_again)
    assert woken == []
    limit.give()
    assert woken == [True, False]
    limit.give()
    assert woken == [True, False, True]
    limit.give()
    assert woken == [True, False, True]
