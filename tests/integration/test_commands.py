"""The commands as users run them, each in its own process."""

import asyncio
import json
import signal
import socket
from pathlib import Path

import aiohttp
import pytest

from bits_auth_proxy import __version__
from tests.support.commands import CLIENT_ID, CLIENT_SECRET, command, get, proxy_env, run
from tests.support.recorder import OK_ANSWER, recording
from tests.support.stand import APPLICATION, CREATE, emulating
from tests.support.waiting import seen

FREE_PORTS = {
    "BITS_LISTEN": "127.0.0.1:0",
    "BITS_ADMIN_LISTEN": "127.0.0.1:0",
    "BITS_EMULATOR__LISTEN": "127.0.0.1:0",
}


async def test_the_emulator_serves_alone_and_prints_its_address() -> None:
    async with command("emulator", env=FREE_PORTS) as running:
        printed = await running.text("/_emulator/state\n")
        origin = printed.split("ready at ")[1].split()[0]
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"{origin}/v1/oauth2/token",
                headers={"Authorization": aiohttp.encode_basic_auth("bits-demo", "bits-demo-secret")},
                data={"grant_type": "client_credentials"},
            ) as answer,
        ):
            assert answer.status == 200
            assert (await answer.json())["type"] == "Bearer"
        running.send_signal(signal.SIGTERM)
        assert await running.ended() == 0


@pytest.mark.parametrize("value", ["socks5://u:hidden@proxy", "https://u:hidden@proxy:1", "proxy.corp:3128"])
async def test_an_egress_proxy_of_the_machine_does_not_keep_the_emulator_and_the_demo_from_running(
    value: str,
) -> None:
    env = {**FREE_PORTS, "HTTPS_PROXY": value}
    for name, printed in (("emulator", "/_emulator/state\n"), ("demo", "applications.create")):
        async with command(name, env=env) as running:
            await running.text(printed)
            running.send_signal(signal.SIGTERM)
            assert await running.ended() == 0
    code, stdout, _ = await run("config", env={**env, "NO_PROXY": "*.bits.bi"})
    assert code == 0
    assert "hidden" not in stdout
    code, _, stderr = await run("config", env=env)
    assert code == (0 if value == "proxy.corp:3128" else 64)
    assert code == 0 or "  HTTPS_PROXY: write http://host:port" in stderr


async def test_check_examines_everything_from_the_settings_to_the_owner() -> None:
    async with emulating() as (_, api):
        code, stdout, stderr = await run("check", env=proxy_env(api))
    assert (code, stderr) == (0, "")
    steps = [line.split()[:2] for line in stdout.splitlines()]
    assert steps == [["ok", step] for step in ("settings", "dns", "tcp", "token", "owner")]
    assert "bits:customer::" in stdout
    assert "fingerprint" in stdout


async def test_check_names_refused_credentials() -> None:
    async with emulating() as (_, api):
        code, stdout, _ = await run("check", env=proxy_env(api, BITS_CLIENT_SECRET="wrong-one"))
    assert code == 1
    failed, *values, hint = stdout.splitlines()[3:]
    assert failed == "FAIL  token     the response is 401 invalid_client"
    assert [line.strip() for line in values] == [
        f"BITS_CLIENT_ID = {CLIENT_ID}  (environment)",
        "BITS_CLIENT_SECRET = ********  (environment)",
        f"BITS_API_URL = {api}  (environment)",
    ]
    assert "→ BITS_CLIENT_ID and BITS_CLIENT_SECRET" in hint
    assert "wrong-one" not in stdout


async def test_check_names_slips_and_exposed_secrets(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"BITS_CLIENT_SECRET='{CLIENT_SECRET}'\n", "utf-8")
    (tmp_path / ".env").chmod(0o644)
    async with emulating() as (_, api):
        env = {**proxy_env(api, BITS_CLIENT_SECERT="x"), "BITS_CLIENT_SECRET": ""}
        code, stdout, stderr = await run("check", env=env, cwd=tmp_path)
    assert (code, stderr) == (0, "")
    assert stdout.splitlines()[:3] == [
        (
            "warn  settings  BITS_CLIENT_SECERT in the environment is not a setting; "
            "did you mean BITS_CLIENT_SECRET?"
        ),
        "warn  settings  .env holds a secret, and any user of this machine may read it (mode 0644)",
        "ok    settings  complete",
    ]


@pytest.mark.parametrize(
    "environ", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}]
)
async def test_check_fits_any_terminal(environ: dict[str, str]) -> None:
    env = proxy_env("http://127.0.0.1:1", BITS_CLIENT_SECRET="canary") | environ
    code, stdout, stderr = await run("check", env=env)
    assert (code, stderr) == (1, "")
    assert stdout.splitlines()[-1].lstrip().startswith("-> ")


async def test_check_lists_slips_beside_faults() -> None:
    code, _, stderr = await run("check", env={"BITS_CLIENT_ID": "acme", "BITS_CLIENT_SECERT": CLIENT_SECRET})
    assert code == 64
    assert "BITS_CLIENT_SECRET: is missing" in stderr
    assert (
        "BITS_CLIENT_SECERT in the environment is not a setting; did you mean BITS_CLIENT_SECRET?" in stderr
    )
    assert CLIENT_SECRET not in stderr


async def test_check_lists_slips_beside_credential_files_that_can_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "client_id").write_text("acme", "utf-8")
    env = {"BITS_CREDENTIALS_DIR": str(tmp_path), "BITS_TOKN_URL": "x"}
    code, stdout, stderr = await run("check", env=env)
    assert code == 64
    assert "did you mean BITS_TOKEN_URL?" in stdout
    assert f"BITS_CLIENT_SECRET_FILE: {tmp_path}/client_secret can't be read" in stderr


async def test_an_env_file_leads_no_secret_of_the_environment_away(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("BITS_TOKEN_URL=https://127.0.0.1:1/token\n", "utf-8")
    for name in ("check", "run"):
        code, stdout, stderr = await run(name, env=proxy_env("http://127.0.0.1:1"), cwd=tmp_path)
        assert (code, stdout) == (64, "")
        assert "BITS_TOKEN_URL: .env must not decide" in stderr


async def test_the_token_url_in_use_is_logged() -> None:
    env = proxy_env("http://127.0.0.1:1")
    for given, logged in (
        ({}, "http://127.0.0.1:1/v1/oauth2/token"),
        ({"BITS_TOKEN_URL": "http://localhost:1/t?key=canary"}, "http://localhost:1/t?********"),
    ):
        async with command("run", env=env | given) as running:
            assert (await running.event("started"))["token_url"] == logged
            assert "canary" not in running.output.replace(CLIENT_SECRET, "")


async def test_a_secret_in_place_of_its_files_path_is_not_shown_while_the_file_is_awaited() -> None:
    env = proxy_env("http://127.0.0.1:1", BITS_CREDENTIALS_WAIT="0.1", BITS_CLIENT_SECRET="")
    code, stdout, stderr = await run("run", env=env | {"BITS_CLIENT_SECRET_FILE": CLIENT_SECRET})
    assert code == 64
    assert "BITS_CLIENT_SECRET_FILE" in stdout
    assert "BITS_CLIENT_SECRET_FILE" in stderr
    assert "canary" not in stdout + stderr


async def test_check_names_the_setting_of_an_api_that_does_not_listen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    code, stdout, _ = await run("check", env=proxy_env(f"http://127.0.0.1:{port}"))
    assert code == 1
    assert "FAIL  tcp" in stdout
    assert "BITS_API_URL" in stdout


async def test_run_is_healthy_until_it_drains() -> None:
    async with emulating() as (_, api), command("run", env=proxy_env(api, BITS_DRAIN_DELAY="300")) as running:
        admin = (await running.event("started"))["admin"][0]
        await running.event("token_refreshed")
        assert await run("healthcheck", "--admin-listen", admin) == (0, "healthy: started\n", "")
        assert (await get(f"http://{admin}/livez"))[0] == 200
        running.send_signal(signal.SIGTERM)
        await running.event("draining")
        assert (await run("healthcheck", "--admin-listen", admin))[0] == 1
        assert await get(f"http://{admin}/readyz") == (503, "draining\n")
        assert (await get(f"http://{admin}/livez"))[0] == 200
        # The second signal does not wait for the delay.
        running.send_signal(signal.SIGTERM)
        assert await running.ended() == 1


async def test_sigterm_lets_the_exchange_in_flight_end() -> None:
    async with recording() as api, command("run", env=proxy_env(f"http://{api.authority}")) as running:
        api.script = [()]
        listen = (await running.event("started"))["listen"][0]
        async with aiohttp.ClientSession(f"http://{listen}") as session:
            calls = [asyncio.ensure_future(session.post(CREATE, json=APPLICATION)) for _ in range(8)]
            await seen(lambda: len(api.requests) == 8)
            running.send_signal(signal.SIGTERM)
            await running.event("draining")
            api.push_all(OK_ANSWER)
            answers = await asyncio.gather(*calls)
            assert [answer.status for answer in answers] == [200] * 8
            assert {answer.headers.get("Connection") for answer in answers} == {"close"}
        assert await running.ended() == 0
        assert running.events[-1]["event"] == "stopped"
        assert running.events[-1]["cut"] == 0


async def test_the_token_endpoint_being_down_does_not_keep_the_proxy_from_starting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    env = proxy_env(f"http://127.0.0.1:{port}", BITS_TOKEN_WAIT="0.1", BITS_STARTUP_GRACE="3600")
    async with command("run", env=env) as running:
        started = await running.event("started")
        failed = await running.event("token_refresh_failed")
        assert failed["kind"] == "connect"
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://{started['listen'][0]}{CREATE}", json={}) as answer,
        ):
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) >= 1
            assert (await answer.json())["code"] == "token_unavailable"
        assert (await get(f"http://{started['admin'][0]}/startupz"))[0] == 503
        assert (await get(f"http://{started['admin'][0]}/livez"))[0] == 200


@pytest.mark.parametrize("variable", ["BITS_LISTEN", "BITS_ADMIN_LISTEN"])
async def test_an_address_in_use_is_named_and_ends_with_1(variable: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, _, stderr = await run("run", env=proxy_env("http://127.0.0.1:1", **{variable: address}))
    assert code == 1
    assert stderr == f"bits-auth-proxy: {variable}: can't listen on {address}: Address already in use\n"


async def test_all_faults_of_the_settings_are_listed_and_end_with_64() -> None:
    code, stdout, stderr = await run(
        "run", env={"BITS_LISTEN": "8080", "BITS_TOKEN_WAIT": "soon", "BITS_CLIENT_SECRET": CLIENT_SECRET}
    )
    assert code == 64
    assert stdout == ""
    for variable in ("BITS_LISTEN", "BITS_TOKEN_WAIT", "BITS_CLIENT_ID"):
        assert f"{variable}: " in stderr
    assert CLIENT_SECRET not in stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "COMMAND"),
        (("walk",), "walk"),
        (("run", "--nonsense"), "--nonsense"),
        (("run", "--client-secret", "s"), "--client-secret"),
        (("healthcheck", "--nonsense"), "--nonsense"),
    ],
)
async def test_bad_usage_ends_with_64(arguments: tuple[str, ...], expected: str) -> None:
    code, stdout, stderr = await run(*arguments)
    assert (code, stdout) == (64, "")
    assert expected in stderr
    assert "--help" in stderr


async def test_version_and_help() -> None:
    assert await run("--version") == (0, f"bits-auth-proxy {__version__}\n", "")
    code, stdout, _ = await run("--help")
    assert code == 0
    for name in ("run", "demo", "emulator", "check", "healthcheck", "config"):
        assert f"\n  {name} " in stdout
    code, stdout, _ = await run("run", "--help")
    assert code == 0
    assert "--upstream-max-connections" in stdout
    assert "--client-secret " not in stdout


async def test_config_shows_values_with_their_origin_and_no_secret(tmp_path: Path) -> None:
    (tmp_path / "bits.toml").write_text('token_wait = 3\nscope = "application"\n', "utf-8")
    code, stdout, _ = await run(
        "config",
        "--config",
        str(tmp_path / "bits.toml"),
        "--drain-delay",
        "7",
        env={"BITS_CLIENT_SECRET": CLIENT_SECRET, "BITS_SCOPE": "application.read"},
    )
    assert code == 0
    lines = {line.split()[0]: line for line in stdout.splitlines()}
    assert "3" in lines["BITS_TOKEN_WAIT"]
    assert "bits.toml" in lines["BITS_TOKEN_WAIT"]
    assert "application.read  (environment" in lines["BITS_SCOPE"]
    assert "--drain-delay" in lines["BITS_DRAIN_DELAY"]
    assert "default" in lines["BITS_ACCESS_LOG"]
    assert CLIENT_SECRET not in stdout


async def test_config_prints_a_schema_and_an_env_file() -> None:
    code, stdout, _ = await run("config", "--schema")
    assert code == 0
    assert "token_wait" in json.loads(stdout)["properties"]
    code, stdout, _ = await run("config", "--env")
    assert code == 0
    assert "BITS_TOKEN_WAIT" in stdout
