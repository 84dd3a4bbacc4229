"""The admin page in a real browser: what it shows and does, and that it loads nothing from elsewhere."""

import contextlib
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.support.commands import CLIENT_ID, CLIENT_SECRET
from tests.support.credentials import mount
from tests.support.stand import APPLICATION, CREATE, Stand, standing
from tests.support.waiting import HANGS

CHROMIUM = "/usr/bin/chromium"
CANARY = "Canary-7f3a"
PATIENCE = 1000 * HANGS
"""Milliseconds. Playwright's own limits are 5 s for expectations and 30 s for actions."""
expect.set_options(timeout=PATIENCE)
SCREENSHOTS = os.environ.get("SCREENSHOTS")
"""The directory for pictures, if somebody wants them."""
Scheme = Literal["light", "dark"]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        # Chromium has no sandbox when root runs it in a container. It opens only our own page.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        launched = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=arguments, timeout=PATIENCE
        )
        yield launched
        await launched.close()


class Watched:
    """A page of the admin listener, and a record of all that must not happen on it."""

    def __init__(self, page: Page) -> None:
        self.complaints: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("requestfailed", lambda request: self.complaints.append(f"{request.url} failed"))
        page.on("request", lambda request: self.asked.append(request.url))


@contextlib.asynccontextmanager
async def opened(
    browser: Browser, stand: Stand, scheme: Scheme = "light", width: int = 1100, ready: str = "ready"
) -> AsyncIterator[Page]:
    """Open the page and wait until it says `ready`.

    At the end, its console must be empty, and it must have called no other origin.
    """
    context = await browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    context.set_default_timeout(PATIENCE)
    page = await context.new_page()
    watched = Watched(page)
    # The console also shows violations of the Content-Security-Policy, but not all of them.
    await page.add_init_script(
        "document.addEventListener('securitypolicyviolation', (breach) => console.error(breach.blockedURI))"
    )
    await page.goto(f"{stand.admin}/")
    await expect(page.locator("#connection")).to_have_text(ready)
    yield page
    # Check before the page is closed, which cancels its requests.
    assert watched.complaints == []
    assert [url for url in watched.asked if not url.startswith(f"{stand.admin}/")] == []
    await context.close()


async def call(stand: Stand, path: str = CREATE, **more: Any) -> int:
    async with (
        aiohttp.ClientSession(stand.url) as client,
        client.post(path, json={**APPLICATION, **more}) as answer,
    ):
        await answer.read()
        return answer.status


async def control(stand: Stand, path: str, **members: Any) -> None:
    async with (
        aiohttp.ClientSession(stand.api) as client,
        client.post(f"/_emulator/{path}", json=members) as answer,
    ):
        assert answer.status == 200


async def some_traffic(stand: Stand) -> None:
    for _ in range(12):
        await call(stand)
    await control(stand, "faults", next_500=1)
    await call(stand)
    await control(stand, "faults", latency=0.2)
    await call(stand)
    await control(stand, "faults", latency=0)
    await control(stand, "revoke")
    for _ in range(4):
        await call(stand)
    await call(stand, "/v1/applications.nothing")
    await control(stand, "faults", next_cut=1)
    await call(stand)
    await call(stand)


async def test_token_traffic_and_counters_appear_by_themselves(browser: Browser) -> None:
    async with standing() as stand, opened(browser, stand) as page:
        await expect(page.locator("#state")).to_have_text("fresh")
        await expect(page.locator("#no-exchanges")).to_be_visible()
        await expect(page.locator("#expires-in")).to_have_text(re.compile(r"59m \d\ds"))
        first = await page.locator("#refresh-in").inner_text()
        await expect(page.locator("#refresh-in")).not_to_have_text(first)  # the countdown is running
        assert await call(stand) == 200
        row = page.locator("#exchanges tr").first
        await expect(row).to_contain_text("applications.create")
        await expect(row.locator(".badge")).to_have_text("200")
        await control(stand, "faults", next_500=1)
        assert await call(stand) == 500
        await expect(page.locator("#exchanges tr")).to_have_count(2)
        await expect(row.locator(".badge")).to_have_text("500")  # the newest request comes first
        await expect(page.locator("#requests")).to_have_text("2")
        await expect(page.locator("#failed_requests")).to_have_text("1")
        assert await call(stand, "/v1/oauth2/token") == 403
        await expect(page.locator("#rejections")).to_contain_text("denied")
        await expect(page.locator("#chart rect")).to_have_count(2)


async def test_all_can_be_done_by_keyboard(browser: Browser) -> None:
    async with standing() as stand, opened(browser, stand) as page:
        before = await page.locator("#fingerprint").inner_text()
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("button", name="Refresh now")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("#done")).to_have_text("A new token has been requested.")
        await expect(page.locator("#fingerprint")).not_to_have_text(before)
        await expect(page.locator("#refreshes tr")).to_have_count(2)
        await expect(page.locator("#refreshes tr").first).to_contain_text("requested")
        await page.keyboard.press("Tab")
        level = page.get_by_role("combobox", name="Log level")
        await expect(level).to_be_focused()
        await page.keyboard.press("w")  # selects "warning"
        await expect(level).to_have_value("warning")
        await expect(page.locator("#done")).to_have_text("The log level is now warning.")
        async with aiohttp.ClientSession(stand.admin) as client, client.get("/log-level") as answer:
            assert await answer.json() == {"level": "warning"}
        # The page also shows changes that were made elsewhere.
        await page.keyboard.press("Tab")
        async with aiohttp.ClientSession(stand.admin) as client:
            await client.post("/log-level?level=debug", headers={"X-Requested-With": "test"})
        await expect(level).to_have_value("debug")
        pause = page.get_by_role("button", name="Pause")
        await expect(pause).to_be_focused()
        await page.keyboard.press("Space")
        await expect(pause).to_have_attribute("aria-pressed", "true")
        await call(stand)
        await expect(page.locator("#requests")).to_have_text("1")
        await expect(page.locator("#exchanges tr")).to_have_count(0)
        await page.keyboard.press("Space")
        await expect(page.locator("#exchanges tr")).to_have_count(1)


async def test_a_token_in_trouble_is_told(browser: Browser) -> None:
    async with standing() as stand, opened(browser, stand) as page:
        await control(stand, "faults", token_mode="fail", token_status=503)
        await page.get_by_role("button", name="Refresh now").click()
        await expect(page.locator("#last-error")).to_contain_text("503")
        await expect(page.locator("#refreshes tr").first).to_contain_text("failure")
        await expect(page.locator("#state")).to_have_text(re.compile("fresh|stale"))


async def test_a_new_pair_that_is_not_taken_is_told_with_its_remedy(browser: Browser, tmp_path: Path) -> None:
    mount(tmp_path, CLIENT_SECRET)
    async with (
        standing(BITS_CREDENTIALS_DIR=str(tmp_path)) as stand,
        opened(browser, stand) as page,
    ):
        await expect(page.locator("#client-id")).to_have_text(CLIENT_ID)
        await expect(page.locator("#candidate")).to_be_hidden()
        await expect(page.locator("#credentials-refused")).to_be_hidden()
        mount(tmp_path, "wrong", "another-client")
        stand.sidecar._watcher.look()
        candidate = page.locator("#candidate")
        await expect(candidate).to_contain_text("another-client")
        await expect(candidate).to_contain_text("invalid_client")
        await expect(candidate).to_contain_text("Do not revoke the old secret")
        await expect(page.locator("#client-id")).to_have_text(CLIENT_ID)
        assert await page.evaluate(FAINT_TEXTS) == []
        mount(tmp_path, CLIENT_SECRET)
        stand.sidecar._watcher.look()
        await expect(candidate).to_be_hidden()


async def test_refused_credentials_are_told_with_their_remedy(browser: Browser) -> None:
    async with (
        standing(BITS_CLIENT_SECRET="wrong", BITS_STARTUP_GRACE="0") as stand,
        opened(browser, stand, ready="started without a token") as page,
    ):
        refused = page.locator("#credentials-refused")
        await expect(refused).to_contain_text("Put the right pair into the credential files")
        await expect(page.locator("#last-error")).to_contain_text("invalid_client")
        assert await page.evaluate(FAINT_TEXTS) == []


async def test_a_401_to_a_clients_own_credential_is_explained(browser: Browser) -> None:
    async with standing() as stand, opened(browser, stand) as page:
        await expect(page.locator("#state")).to_have_text("fresh")
        await expect(page.locator("#client-unauthorized")).to_be_hidden()
        async with (
            aiohttp.ClientSession(stand.url, headers={"Authorization": "Bearer placeholder"}) as client,
            client.post(CREATE, json=APPLICATION) as answer,
        ):
            assert answer.status == 401
        await expect(page.locator("#client-unauthorized")).to_contain_text("answered 401: 1.")
        await expect(page.locator("#client-unauthorized")).to_contain_text("BITS_CLIENT_AUTHORIZATION=keep")


async def test_inspected_requests_open_masked_and_as_text(browser: Browser) -> None:
    async with standing(BITS_INSPECT="true") as stand, opened(browser, stand) as page:
        markup = "<img src=x onerror=console.error(1)>"
        await call(stand, customer={"firstName": CANARY, "note": markup})
        await page.get_by_role("button", name="applications.create").focus()
        await page.keyboard.press("Enter")
        request, response = page.locator("#exchanges pre").nth(0), page.locator("#exchanges pre").nth(1)
        await expect(request).to_contain_text('"countryCode": "SE"')
        await expect(request).to_contain_text('"firstName": "[masked]"')
        await expect(request).to_contain_text(markup)  # shown as text
        await expect(response).to_contain_text('"sessionToken": "[masked]"')
        assert CANARY not in await page.content()
        await page.keyboard.press("Enter")
        await expect(page.locator("#exchanges pre")).to_have_count(0)


async def test_it_says_when_the_proxy_does_not_answer(browser: Browser) -> None:
    async with standing() as stand:
        page = await browser.new_page()
        await page.goto(f"{stand.admin}/")
        await expect(page.locator("#connection")).to_have_text("ready")
    await expect(page.locator("#connection")).to_have_text("no response, trying again")


# Returns visible texts whose contrast with their background is below 4.5 (WCAG 2.1, 1.4.3).
FAINT_TEXTS = """() => {
    const channels = (color) => color.match(/[\\d.]+/g).map(Number);
    const linear = (part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    const luminance = (color) => {
        const [r, g, b] = channels(color).map((channel) => linear(channel / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        for (; element; element = element.parentElement) {
            const color = getComputedStyle(element).backgroundColor;
            if (channels(color)[3] !== 0) return color;
        }
        return "rgb(255, 255, 255)";
    };
    const faint = [];
    for (const element of document.querySelectorAll("body *")) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!own || !element.checkVisibility()) continue;
        const [one, other] = [getComputedStyle(element).color, behind(element)].map(luminance);
        const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        if (ratio < 4.5) faint.push(`${element.textContent.trim()}: ${ratio.toFixed(2)}`);
    }
    return faint;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 360])
async def test_it_can_be_read_in_light_and_dark_on_any_screen(
    browser: Browser, scheme: Scheme, width: int
) -> None:
    async with standing(BITS_INSPECT="true") as stand, opened(browser, stand, scheme, width) as page:
        await some_traffic(stand)
        await expect(page.locator("#requests")).to_have_text("21")
        assert await page.evaluate(FAINT_TEXTS) == []
        ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground))) < 3 * 128) is (scheme == "dark")
        # The page itself never scrolls sideways.
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        # Every control and every meaningful element has a name for screen readers.
        outline = await page.locator("body").aria_snapshot()
        assert "button" in outline
        assert re.findall(r"- (?:button|combobox|link|progressbar|img|region)(?! \").*", outline) == []
        if SCREENSHOTS:
            path = Path(SCREENSHOTS) / f"page-{scheme}-{width}.png"
            await page.screenshot(path=path, full_page=width < 1100)
