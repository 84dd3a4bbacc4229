"""The clients that people use, against the whole stand: each creates an application through the proxy."""

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import requests

from tests.support.commands import NODE
from tests.support.stand import APPLICATION, CREATE, standing, unix_address
from tests.support.waiting import HANGS

ID_PREFIX = "bits:application::"

NODE_CLIENT = """
const [url, body] = process.argv.slice(1);
const answer = await fetch(url, {method: "POST", headers: {"content-type": "application/json"}, body});
console.log(JSON.stringify([answer.status, await answer.json()]));
"""


async def output_of(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(HANGS):
        stdout, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
    return stdout.decode()


async def test_httpx() -> None:
    async with standing() as stand, httpx.AsyncClient(base_url=stand.url) as client:
        for _ in range(2):
            answer = await client.post(CREATE, json=APPLICATION)
            assert answer.status_code == 200
            assert answer.json()["id"].startswith(ID_PREFIX)


async def test_httpx_streaming_a_body_of_unknown_length() -> None:
    async def pieces() -> Any:
        for piece in json.dumps(APPLICATION).split(","):
            yield (piece if piece.endswith("}") else piece + ",").encode()

    async with standing() as stand, httpx.AsyncClient(base_url=stand.url) as client:
        answer = await client.post(CREATE, content=pieces(), headers={"content-type": "application/json"})
        assert answer.status_code == 200


async def test_requests() -> None:
    def create_twice(url: str) -> list[Any]:
        with requests.Session() as session:
            return [session.post(url + CREATE, json=APPLICATION, timeout=HANGS).json() for _ in range(2)]

    async with standing() as stand:
        answers = await asyncio.to_thread(create_twice, stand.url)
        assert [answer["id"].startswith(ID_PREFIX) for answer in answers] == [True, True]


async def test_aiohttp() -> None:
    async with standing() as stand, aiohttp.ClientSession(stand.url) as client:
        for _ in range(2):
            async with client.post(CREATE, json=APPLICATION) as answer:
                assert answer.status == 200
                assert (await answer.json())["id"].startswith(ID_PREFIX)


async def test_node_fetch() -> None:
    async with standing() as stand:
        output = await output_of(
            str(NODE), "--input-type=module", "-e", NODE_CLIENT, stand.url + CREATE, json.dumps(APPLICATION)
        )
        status, answer = json.loads(output)
        assert status == 200
        assert answer["id"].startswith(ID_PREFIX)


async def test_clients_that_take_the_proxy_for_their_http_proxy() -> None:
    """They send the whole URL of the API as their target, and its host as Host."""

    def call(api: str, proxy: str) -> list[int]:
        url = api + CREATE
        handler = urllib.request.ProxyHandler({"http": proxy})
        request = urllib.request.Request(  # noqa: S310 - it is http
            url, json.dumps(APPLICATION).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.build_opener(handler).open(request, timeout=HANGS) as by_urllib:
            statuses = [by_urllib.status]
        with httpx.Client(proxy=proxy) as client:
            statuses.append(client.post(url, json=APPLICATION).status_code)
        by_requests = requests.post(url, json=APPLICATION, proxies={"http": proxy}, timeout=HANGS)
        return [*statuses, by_requests.status_code]

    async with standing(BITS_LISTEN="0.0.0.0:0", BITS_ALLOWED_HOSTS="bits.internal") as stand:
        assert await asyncio.to_thread(call, stand.api, stand.url) == [200, 200, 200]


async def test_httpx_over_a_unix_socket(tmp_path: Path) -> None:
    listen, path = unix_address(tmp_path)
    async with (
        standing(BITS_LISTEN=listen),
        httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=path), base_url="http://bits") as client,
    ):
        assert (await client.post(CREATE, json=APPLICATION)).status_code == 200


async def test_aiohttp_over_a_unix_socket(tmp_path: Path) -> None:
    listen, path = unix_address(tmp_path)
    async with (
        standing(BITS_LISTEN=listen),
        aiohttp.ClientSession("http://bits", connector=aiohttp.UnixConnector(path)) as client,
        client.post(CREATE, json=APPLICATION) as answer,
    ):
        assert answer.status == 200
