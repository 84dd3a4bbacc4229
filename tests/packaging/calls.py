"""Calls to a proxy in front of the emulator."""

import json
import re
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from tests.support.commands import Command
from tests.support.waiting import HANGS

DEMO = {
    "BITS_LISTEN": "127.0.0.1:0",
    "BITS_ADMIN_LISTEN": "127.0.0.1:0",
    "BITS_EMULATOR__LISTEN": "127.0.0.1:0",
}
"""Settings of a demo on free ports."""


async def address_of(demo: Command) -> str:
    """Wait until a demo is ready; return its origin."""
    said = await demo.text("The proxy is ready at ")
    found = re.search(r"ready at (127\.0\.0\.1:\d+)", said)
    assert found is not None, said
    return f"http://{found[1]}"


def create_application(url: str, *, through: str | None = None) -> Any:
    """Create an application at the API behind `url`, through the http proxy `through` if one is given."""
    body = {
        "workflowId": "bits:workflow::8abe317f-6d54-4949-8ecd-245efb4fa05d",
        "countryCode": "SE",
        "redirectUrl": "https://acme.example/done",
    }
    request = Request(  # noqa: S310 - http
        f"{url}/v1/applications.create",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    opener = build_opener(ProxyHandler({} if through is None else {"http": through}))
    with opener.open(request, timeout=HANGS) as answer:
        return json.load(answer)
