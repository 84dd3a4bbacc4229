"""Whose credentials these are: a pair of another customer must not come into use."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from bits_auth_proxy.auth.bits_oauth import ClientCredentials, FailureKind, TokenRequestError
from tests.support.refresher_stage import RefresherStage
from tests.support.timers import settle

ANOTHER = "bits:customer::2"


async def staged(**settings: Any) -> AsyncIterator[RefresherStage]:
    made = RefresherStage(**settings)
    yield made
    made.it.close()
    await made.tasks.close()


@pytest.fixture
async def stage() -> AsyncIterator[RefresherStage]:
    async for made in staged():
        yield made


@pytest.fixture
async def expecting() -> AsyncIterator[RefresherStage]:
    async for made in staged(expected_customer="bits:customer::1"):
        yield made


@pytest.fixture
async def allowing() -> AsyncIterator[RefresherStage]:
    async for made in staged(allow_customer_change=True):
        yield made


async def rotated(stage: RefresherStage) -> None:
    stage.it.change_credentials(ClientCredentials("new", "s"))
    await settle()
    stage.endpoint.grant()
    await settle()


async def test_a_new_pair_of_the_same_customer_is_adopted(stage: RefresherStage) -> None:
    await stage.begin()
    assert stage.endpoint.customers_asked == []
    await rotated(stage)
    assert stage.endpoint.customers_asked == ["token-1", "token-2"]
    assert stage.log.adopted == ["new"]


async def test_a_new_pair_of_another_customer_is_not_adopted(stage: RefresherStage) -> None:
    token = await stage.begin()
    stage.endpoint.customers["token-2"] = ANOTHER
    await rotated(stage)
    assert stage.current() is token
    assert stage.log.failed == [("customer", "credentials")]
    status = stage.it.status()
    assert status.client_id == "old"
    assert status.candidate is not None
    assert status.candidate.last_error == (
        f"the credentials belong to {ANOTHER}, and bits:customer::1 is expected"
    )


async def test_it_is_adopted_if_that_is_allowed(allowing: RefresherStage) -> None:
    await allowing.begin()
    allowing.endpoint.customers["token-2"] = ANOTHER
    await rotated(allowing)
    assert allowing.log.adopted == ["new"]
    assert allowing.endpoint.customers_asked == []


@pytest.mark.parametrize("kind", ["server_error", "status", "timeout", "malformed"])
@pytest.mark.parametrize("of", ["token-1", "token-2"])
async def test_where_userinfo_does_not_answer_the_new_pair_is_adopted(
    stage: RefresherStage, kind: FailureKind, of: str
) -> None:
    await stage.begin()
    stage.endpoint.customers[of] = TokenRequestError(kind, "no")
    await rotated(stage)
    assert stage.log.adopted == ["new"]


async def test_a_token_that_the_api_does_not_know_yet_is_asked_about_again(stage: RefresherStage) -> None:
    token = await stage.begin()
    stage.endpoint.customers["token-2"] = TokenRequestError("refused", "the response is 401")
    await rotated(stage)
    await stage.timers.advance(3.0, step=0.1)
    assert stage.current() is token
    stage.endpoint.customers["token-2"] = "bits:customer::1"
    await stage.timers.advance(4.5, step=0.1)
    assert stage.log.adopted == ["new"]
    assert stage.endpoint.asked == ["old", "new"]


async def test_a_pair_whose_tokens_the_api_refuses_is_not_adopted(stage: RefresherStage) -> None:
    token = await stage.begin()
    stage.endpoint.customers["token-2"] = TokenRequestError("refused", "the response is 401")
    await rotated(stage)
    await stage.timers.advance(12.0, step=0.1)
    assert stage.current() is token
    assert [kind for kind, _ in stage.log.failed] == ["timeout"] or stage.log.failed[0][0] == "refused"
    assert stage.log.adopted == []


async def test_without_a_valid_token_a_pair_is_adopted_unless_it_is_another_customers(
    stage: RefresherStage,
) -> None:
    stage.it.start()
    await settle()
    stage.endpoint.fail("refused")
    await settle()
    await rotated(stage)
    assert stage.log.adopted == ["new"]
    assert stage.endpoint.customers_asked == []


async def test_the_first_pair_must_be_the_expected_customers(expecting: RefresherStage) -> None:
    expecting.endpoint.customer = ANOTHER
    expecting.it.start()
    await settle()
    expecting.endpoint.grant()
    await settle()
    assert expecting.current() is None
    assert expecting.log.failed == [("customer", "start")]
    assert "bits:customer::1" in expecting.it.explain().detail


async def test_the_expected_customers_pair_is_checked_once(expecting: RefresherStage) -> None:
    await expecting.begin()
    await expecting.timers.advance(2.0)
    expecting.it.refresh()
    await settle()
    expecting.endpoint.grant()
    await settle()
    assert expecting.log.obtained == ["start", "requested"]
    assert expecting.endpoint.customers_asked == ["token-1"]


async def test_the_expected_customer_is_asked_for_again_where_userinfo_did_not_answer(
    expecting: RefresherStage,
) -> None:
    expecting.endpoint.customers["token-1"] = TokenRequestError("server_error", "no")
    token = await expecting.begin()
    assert expecting.current() is token
    await expecting.timers.advance(2.0)
    expecting.it.refresh()
    await settle()
    expecting.endpoint.customers["token-2"] = ANOTHER
    expecting.endpoint.grant()
    await settle()
    assert expecting.current() is token
    assert expecting.log.failed == [("customer", "requested")]


async def test_a_new_pair_is_not_adopted_unchecked_where_a_customer_is_expected(
    expecting: RefresherStage,
) -> None:
    token = await expecting.begin()
    expecting.endpoint.customers["token-2"] = TokenRequestError("server_error", "the response is 503")
    await rotated(expecting)
    assert expecting.current() is token
    assert expecting.log.failed == [("server_error", "credentials")]
