"""The limits hold, and places come back."""

from bits_auth_proxy.forward.limits import ClientShares, ConnectionLimit


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


def test_each_client_address_has_a_share_of_its_own_and_those_without_requests_are_forgotten() -> None:
    shares = ClientShares(2)
    assert [shares.take("a") for _ in range(3)] == [True, True, False]
    assert shares.take("b")
    shares.give("a")
    assert [shares.take("a") for _ in range(2)] == [True, False]
    for address in ("a", "a", "b"):
        shares.give(address)
    assert shares.taken == {}
