"""curl as a client, and the commands that `demo` prints."""

import asyncio
import io
import json
import shlex
import signal
from pathlib import Path

import pytest

from tests.support.commands import command
from tests.support.pki import Pki
from tests.support.stand import APPLICATION, CREATE, emulating, sidecar_for, standing, unix_address
from tests.support.waiting import HANGS

ID_PREFIX = "bits:application::"
FREE_PORTS = {
    "BITS_LISTEN": "127.0.0.1:0",
    "BITS_ADMIN_LISTEN": "127.0.0.1:0",
    "BITS_EMULATOR__LISTEN": "127.0.0.1:0",
}


async def output_of(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(HANGS):
        stdout, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
    return stdout.decode()


def curl(url: str, *options: str) -> tuple[str, ...]:
    body = json.dumps(APPLICATION)
    return ("curl", "-sS", *options, "-X", "POST", url, "-H", "content-type: application/json", "-d", body)


async def test_curl() -> None:
    async with standing() as stand:
        answer = json.loads(await output_of(*curl(stand.url + CREATE)))
        assert answer["id"].startswith(ID_PREFIX)
        assert answer["sessionToken"]


async def test_curl_over_tls(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    async with emulating() as (_, api), sidecar_for(api, io.StringIO(), **pki.settings) as sidecar:
        url = f"https://{sidecar.addresses[0]}{CREATE}"
        for version in ("--tlsv1.2", "--tlsv1.3"):
            answer = json.loads(await output_of(*curl(url, version, "--cacert", str(pki.ca_file))))
            assert answer["id"].startswith(ID_PREFIX)


async def test_curl_expecting_100_continue_with_a_body_of_1_mib() -> None:
    async with standing() as stand:
        padded = json.dumps({**APPLICATION, "note": "x" * 2**20})
        process = await asyncio.create_subprocess_exec(
            *curl(stand.url + CREATE)[:-1],
            "@-",
            "-H",
            "Expect: 100-continue",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(HANGS):
            stdout, _ = await process.communicate(padded.encode())
        assert json.loads(stdout)["id"].startswith(ID_PREFIX)


async def test_curl_over_a_unix_socket(tmp_path: Path) -> None:
    listen, path = unix_address(tmp_path)
    async with standing(BITS_LISTEN=listen):
        assert Path(path).stat().st_mode & 0o777 == 0o600
        answer = json.loads(await output_of(*curl("http://localhost" + CREATE, "--unix-socket", path)))
        assert answer["id"].startswith(ID_PREFIX)
    assert not Path(path).exists()


@pytest.mark.parametrize("tls", [False, True])
async def test_demo_prints_commands_that_work(tmp_path: Path, *, tls: bool) -> None:
    async with command("demo", env={**FREE_PORTS, **(Pki(tmp_path).settings if tls else {})}) as running:
        printed = await running.text("_emulator/revoke\n")
        create, owner = (line for line in printed.splitlines() if "curl" in line and "localhost" in line)
        assert json.loads(await output_of(*shlex.split(create)))["id"].startswith("bits:application::")
        assert json.loads(await output_of(*shlex.split(owner)))["customerId"].startswith("bits:customer::")
        metrics, status = (line for line in printed.splitlines() if "/metrics" in line or "/status" in line)
        exposed = await output_of(*shlex.split(metrics.partition("|")[0]))
        assert 'bits_proxy_token_refreshes_total{outcome="success",reason="start"} 1.0' in exposed
        assert "bits_proxy_token_expires_timestamp_seconds" in exposed
        assert json.loads(await output_of(*shlex.split(status)))["token"]["state"] == "fresh"
        # All tokens are revoked, and the next request succeeds nevertheless.
        await output_of(*shlex.split(next(line for line in printed.splitlines() if "/revoke" in line)))
        assert json.loads(await output_of(*shlex.split(create)))["id"].startswith("bits:application::")
        running.send_signal(signal.SIGINT)
        assert await running.ended() == 0
