"""No call fails because of the token, whatever is wrong with a new token, a new pair or one token request.

Each test is a token endpoint or an API that does something, and callers who must not notice it, through the
whole proxy on a clock that the test moves.
"""

import json
from pathlib import Path

import pytest

from bits_auth_proxy.auth.tokens import TokenState
from tests.support.credentials import mount
from tests.support.stepped import Reply, Stage, reply, stepped

NO = reply("401 No", '{"error":"invalid_client"}')
HANG: Reply = (b"", "hang")
TROUBLES: dict[str, Reply] = {
    "denied": NO,
    "500": reply("500 Oops"),
    "429": reply("429 Slow Down\r\nRetry-After: 60"),
    "302": reply("302 Go\r\nLocation: https://elsewhere.example/"),
    "403": reply("403 No"),
    "cut": (b"HTTP/1.1 200 OK\r\n", "close"),
    "hang": HANG,
}


# The API and new tokens.


@stepped
async def test_an_api_that_learns_of_a_new_token_after_5_s_is_not_noticed(stage: Stage) -> None:
    stage.door.lifetime = 30
    await stage.begin()
    stage.prove()
    stage.api.lag = 5
    await stage.pass_time(5)
    assert set(await stage.traffic(110)) == {200}
    assert 4 <= stage.door.asked <= 9


@stepped
async def test_it_is_not_noticed_with_tokens_that_live_little_longer(stage: Stage) -> None:
    stage.door.lifetime = 10
    await stage.begin()
    stage.prove()
    await stage.pass_time(5)
    stage.api.lag = 5
    # For a moment there is no token at all that the API accepts, and calls wait.
    assert set(await stage.traffic(110)) == {200}


@stepped
async def test_with_no_previous_token_the_call_waits_until_the_api_knows_the_first(stage: Stage) -> None:
    stage.api.lag = 5
    await stage.begin()
    assert set(await stage.traffic(6)) == {200}
    assert stage.door.asked == 2


@stepped
async def test_a_first_token_that_was_revoked_before_it_served_is_replaced_at_once(stage: Stage) -> None:
    await stage.begin()
    stage.api.revoked.add("token-1")
    began = stage.clock.now()
    call = stage.calling()
    while not call.done():
        await stage.pass_time(0.05, step=0.05)
    assert await call == 200
    assert stage.clock.now() - began <= 1


@stepped
async def test_a_call_that_can_not_be_sent_again_gets_the_proven_token(stage: Stage) -> None:
    await stage.begin()
    stage.prove()
    stage.api.lag = 5
    await stage.pass_time(10)
    stage.sidecar._refresher.refresh()
    await stage.settle()
    assert await stage.call(b"x" * 100_000) == 200
    assert stage.api.seen[-1] == "token-1"
    await stage.pass_time(6)
    assert await stage.call() == 200
    assert stage.api.seen[-1] == "token-2"
    assert await stage.call(b"x" * 100_000) == 200
    assert stage.api.seen[-1] == "token-2"


@stepped
async def test_new_tokens_that_are_never_accepted_cost_nothing_while_the_old_one_lives(stage: Stage) -> None:
    stage.door.lifetime = 100
    await stage.begin()
    stage.prove()
    stage.api.revoked |= {f"token-{number}" for number in range(2, 100)}
    assert set(await stage.traffic(88, every=0.2)) == {200}
    assert stage.door.asked <= 4


# Tokens that die.


@stepped
async def test_a_revoked_token_and_one_failure_of_the_endpoint_cost_no_call(stage: Stage) -> None:
    await stage.begin()
    stage.prove()
    await stage.pass_time(60)
    stage.api.revoked.add("token-1")
    stage.door.once = [reply("503 Down")]
    began = stage.clock.now()
    assert set(await stage.traffic(3)) == {200}
    assert stage.door.asked == 3
    assert stage.door.issued["token-2"][0] - began <= 2.1


@pytest.mark.parametrize("after", [45.0, 10.0])
@stepped
async def test_tokens_that_die_early_are_replaced_and_the_calls_sent_again(
    stage: Stage, after: float
) -> None:
    await stage.begin()
    stage.api.dies_after = after
    assert set(await stage.traffic(600, every=0.2)) == {200}
    assert stage.door.asked == pytest.approx(600 / after, abs=2)
    early = stage.events("tokens_refused_early")
    assert [event["level"] for event in early][:1] == ["error"]
    metrics = (await stage.get("/metrics"))[1]
    (line,) = [each for each in metrics.splitlines() if each.startswith("bits_proxy_tokens_refused_early_t")]
    assert float(line.split()[-1]) >= 5


@stepped
async def test_an_operation_that_always_gets_401_does_not_hide_that_the_token_died(stage: Stage) -> None:
    stage.api.always_401 = {"denied"}
    await stage.begin()
    assert await stage.call() == 200
    statuses = await stage.traffic(300, "x", "denied", every=0.5)
    assert statuses[::2] == [200] * 600
    assert statuses[1::2] == [401] * 600
    # At 0, 30 and 90 s, and at 210 s.
    assert stage.door.asked <= 6
    stage.api.revoked.add(list(stage.door.issued)[-1])
    asked = stage.door.asked
    assert set(await stage.traffic(5)) == {200}
    assert stage.door.asked == asked + 1


@stepped
async def test_when_all_tokens_are_revoked_soon_after_a_refresh_calls_are_sent_again(stage: Stage) -> None:
    await stage.begin()
    assert await stage.call() == 200
    await stage.pass_time(10)
    stage.sidecar._refresher.refresh()
    await stage.settle()
    assert await stage.call() == 200
    await stage.pass_time(5)
    assert stage.api.seen[-1] == "token-2"
    stage.api.revoked |= {"token-1", "token-2"}
    assert set(await stage.traffic(2)) == {200}
    assert stage.door.asked == 3


@stepped
async def test_then_an_operation_that_was_never_called_before_notices_it_too(stage: Stage) -> None:
    await stage.begin()
    assert await stage.call() == 200
    await stage.pass_time(10)
    stage.sidecar._refresher.refresh()
    await stage.settle()
    stage.api.revoked |= {"token-1", "token-2"}
    assert set(await stage.traffic(2, "y")) == {200}
    assert stage.door.asked == 3


@stepped
async def test_an_operation_that_gets_401_from_the_start_is_answered_while_others_are_served(
    stage: Stage,
) -> None:
    stage.api.always_401 = {"denied"}
    await stage.begin()
    statuses = await stage.traffic(20, "denied", "x", every=0.5)
    assert set(statuses[::2]) == {401}
    assert set(statuses[1::2]) == {200}


@stepped
async def test_a_401_that_depends_on_the_request_is_passed_on_and_hides_no_death(stage: Stage) -> None:
    await stage.begin()
    assert await stage.call() == 200
    stage.api.refused_body = b"refused"
    refused = []
    for _ in range(600):
        refused.append(stage.calling(b"refused"))
        await stage.settle()
        assert await stage.call() == 200
        await stage.pass_time(1)
    assert {await call for call in refused} == {401}
    # Up to three requests in each interval, which begin at 0, 30 and 90 s, and at 210 and 450 s.
    assert stage.door.asked <= 1 + 3 * 5
    assert stage.events("tokens_refused_early") == []
    stage.api.revoked.add(list(stage.door.issued)[-1])
    assert await stage.traffic(2) == [401, 401] + [200] * 38


@stepped
async def test_two_programs_where_only_the_newest_token_is_valid_do_not_starve(stage: Stage) -> None:
    await stage.begin()
    stage.api.newest_alone = True
    for _ in range(30):
        assert set(await stage.traffic(2)) == {200}
        # The other one gets a token for itself.
        stage.door._granted("another")
    assert stage.events("tokens_refused_early")
    # One for each time that the other one got one.
    assert stage.door.asked <= 32


@pytest.mark.parametrize("how", ["challenge", "body"])
@stepped
async def test_a_403_that_says_invalid_token_counts_as_a_401(stage: Stage, how: str) -> None:
    await stage.begin()
    stage.prove()
    stage.api.forbids = how
    stage.api.revoked.add("token-1")
    assert await stage.call() == 200
    assert stage.api.seen == ["token-1", "token-2"]
    stage.api.always_401 = {"denied"}
    stage.api.forbids = "other"
    assert await stage.call(operation="denied") == 403
    assert stage.api.seen == ["token-1", "token-2", "token-2"]
    assert stage.token.state is TokenState.FRESH


# The endpoint.


@stepped
async def test_when_the_first_token_request_hangs_the_next_one_serves(stage: Stage) -> None:
    stage.door.once = [HANG]
    await stage.begin()
    assert set(await stage.traffic(1)) == {200}
    assert stage.door.issued["token-1"][0] - 1000 <= 3


@stepped
async def test_after_an_outage_that_hangs_calls_are_served_within_3_s(stage: Stage) -> None:
    stage.door.trouble = HANG
    await stage.begin()
    await stage.traffic(30, every=0.5)
    stage.door.trouble = None
    repaired = stage.clock.now()
    assert set(await stage.traffic(1)) == {200}
    assert stage.door.issued["token-1"][0] - repaired <= 3


@stepped
async def test_a_machine_that_sleeps_during_a_token_request_begins_another_when_it_wakes(
    stage: Stage,
) -> None:
    stage.door.once = [HANG]
    await stage.begin()
    stage.suspend(3600)
    woke = stage.clock.now()
    assert set(await stage.traffic(0.5)) == {200}
    assert stage.door.issued["token-1"][0] - woke <= 0.1


@stepped
async def test_credentials_denied_for_minutes_are_tried_every_30_s_while_calls_arrive(stage: Stage) -> None:
    stage.door.trouble = NO
    await stage.begin()
    await stage.traffic(188, every=1)
    stage.door.trouble = None
    repaired = stage.clock.now()
    await stage.traffic(31, every=1)
    assert stage.door.issued["token-1"][0] - repaired <= 30


@stepped
async def test_with_a_long_retry_after_calls_are_told_at_once_why_and_for_how_long(stage: Stage) -> None:
    stage.door.trouble = reply("429 Slow Down\r\nRetry-After: 300")
    await stage.begin()
    async with stage.session.post(f"http://{stage.sidecar.addresses[0]}/v1/x", data=b"") as answer:
        assert answer.status == 503
        assert 299 <= int(answer.headers["Retry-After"]) <= 301
        assert "429" in (await answer.json())["detail"]
    assert stage.clock.now() == 1000


@pytest.mark.parametrize("lifetime", [60, 90, 120, 150])
@stepped
async def test_there_is_always_one_more_try_before_a_short_token_ends(stage: Stage, lifetime: int) -> None:
    stage.door.lifetime = lifetime
    await stage.begin()
    token = stage.token.token
    assert token is not None
    stage.door.trouble = reply("503 Down\r\nRetry-After: 300")
    await stage.pass_time(0.8 * lifetime, step=0.5)
    asked = stage.door.asked
    assert asked > 1
    await stage.pass_time(token.expires_at - stage.clock.now() - 0.01, step=0.1)
    assert stage.door.asked > asked


@stepped
async def test_a_secret_that_is_refused_for_good_is_told_by_name_and_calls_get_their_401(
    stage: Stage,
) -> None:
    await stage.begin()
    stage.prove()
    stage.door.trouble = NO
    stage.api.revoked.add("token-1")
    assert set(await stage.traffic(5, every=0.5)) == {401}
    # Denied for good, there is nothing to wait for.
    assert await stage.call() == 401
    (failed, *_) = stage.events("token_refresh_failed")
    assert (failed["kind"], failed["level"]) == ("refused", "error")
    assert "invalid_client" in failed["detail"]
    # While calls arrive, it is tried every 30 s, although the token has an hour to live by the clock.
    stage.door.trouble = None
    assert (await stage.traffic(40, every=1))[-5:] == [200] * 5


# Rotations.


@pytest.mark.parametrize("trouble", TROUBLES)
@stepped
async def test_whatever_happens_to_the_new_pair_the_old_one_goes_on(
    stage: Stage, tmp_path: Path, trouble: str
) -> None:
    stage.door.lifetime = 120
    mount(tmp_path, "s", "old")
    await stage.begin(BITS_CREDENTIALS_DIR=str(tmp_path), BITS_CLIENT_ID="", BITS_CLIENT_SECRET="")
    stage.door.trouble_of["new"] = TROUBLES[trouble]
    await stage.pass_time(1)
    changed = stage.clock.wall()
    mount(tmp_path, "s", "new")
    assert set(await stage.traffic(400, every=1)) == {200}
    assert {client_id for _, client_id in stage.door.issued.values()} == {"old"}
    assert stage.door.pairs.count("new") >= 2
    token = json.loads((await stage.get("/status"))[1])["token"]
    assert token["client_id"] == "old"
    assert token["candidate"]["client_id"] == "new"
    assert changed <= token["candidate"]["since_timestamp_seconds"] <= changed + 10
    assert token["candidate"]["last_error"]
    assert token["last_error"] is None
    assert "credentials_candidate_timestamp_seconds 1.7" in (await stage.get("/metrics"))[1]
    # No event says that the new pair is in use.
    assert stage.events("credentials_adopted") == []
    assert {event["client_id"] for event in stage.events("token_refreshed")} == {"old"}
    assert {event["client_id"] for event in stage.events("token_refresh_failed")} == {"new"}
    assert "credentials" not in {event["reason"] for event in stage.events("token_refreshed")}
    # When the new one is good at last, it is adopted.
    stage.door.trouble_of.clear()
    assert set(await stage.traffic(301, every=1)) == {200}
    assert [event["client_id"] for event in stage.events("credentials_adopted")] == ["new"]
    assert "candidate_timestamp_seconds 1.7" not in (await stage.get("/metrics"))[1]


@pytest.mark.parametrize("lifetime", [2, 10, 20])
@stepped
async def test_a_new_pair_that_hangs_delays_no_call_however_short_the_tokens_live(
    stage: Stage, tmp_path: Path, lifetime: int
) -> None:
    stage.door.lifetime = lifetime
    mount(tmp_path, "s", "old")
    await stage.begin(BITS_CREDENTIALS_DIR=str(tmp_path), BITS_CLIENT_ID="", BITS_CLIENT_SECRET="")
    stage.door.trouble_of["new"] = HANG
    mount(tmp_path, "s", "new")
    stage.sidecar._watcher.look()
    assert set(await stage.traffic(60, every=0.2)) == {200}


@stepped
async def test_a_wrong_new_pair_while_the_token_is_suspect_is_not_reported_as_adopted(
    stage: Stage, tmp_path: Path
) -> None:
    mount(tmp_path, "s", "old")
    await stage.begin(BITS_CREDENTIALS_DIR=str(tmp_path), BITS_CLIENT_ID="", BITS_CLIENT_SECRET="")
    stage.prove()
    await stage.pass_time(1)
    stage.door.trouble_of["new"] = NO
    mount(tmp_path, "s", "new")
    stage.api.revoked.add("token-1")
    assert set(await stage.traffic(20, every=0.5)) == {200}
    assert [event["reason"] for event in stage.events("token_refreshed")] == ["start", "refused"]
    assert {event["client_id"] for event in stage.events("token_refreshed")} == {"old"}
    assert stage.events("credentials_adopted") == []


@stepped
async def test_an_old_secret_that_is_revoked_when_the_files_change_costs_no_second(
    stage: Stage, tmp_path: Path
) -> None:
    mount(tmp_path, "s", "old")
    await stage.begin(BITS_CREDENTIALS_DIR=str(tmp_path), BITS_CLIENT_ID="", BITS_CLIENT_SECRET="")
    stage.prove()
    # Just after a look at the files.
    await stage.pass_time(6)
    mount(tmp_path, "s", "new")
    stage.door.trouble_of["old"] = NO
    stage.api.revoked.add("token-1")
    began = stage.clock.now()
    statuses = await stage.traffic(2)
    assert set(statuses) == {200}
    issued, client_id = stage.door.issued["token-2"]
    assert client_id == "new"
    assert issued - began <= 1


@stepped
async def test_a_pair_of_another_customer_is_not_adopted_and_the_reason_is_told(
    stage: Stage, tmp_path: Path
) -> None:
    mount(tmp_path, "s", "old")
    await stage.begin(BITS_CREDENTIALS_DIR=str(tmp_path), BITS_CLIENT_ID="", BITS_CLIENT_SECRET="")
    stage.api.customers["new"] = "bits:customer::2"
    mount(tmp_path, "s", "new")
    await stage.pass_time(60)
    assert set(await stage.traffic(1)) == {200}
    token = json.loads((await stage.get("/status"))[1])["token"]
    assert "bits:customer::2" in token["candidate"]["last_error"]
    (failed, *_) = stage.events("token_refresh_failed")
    assert (failed["kind"], failed["level"], failed["client_id"]) == ("customer", "error", "new")
    assert stage.api.seen[-1] == "token-1"


@stepped
async def test_credentials_of_another_customer_than_the_expected_one_serve_nothing(stage: Stage) -> None:
    await stage.begin(BITS_EXPECTED_CUSTOMER_ID="bits:customer::9")
    assert await stage.call_without_token() == 503
    (failed, *_) = stage.events("token_refresh_failed")
    assert failed["kind"] == "customer"
    assert "bits:customer::9" in failed["detail"]
