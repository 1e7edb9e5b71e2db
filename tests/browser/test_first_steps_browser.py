"""From an invitation to a budget in a real browser, each step proved by requests that are sent."""

import re
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Visitor, receipt_exists, visit
from tests.support.running import Platform, post_message
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.e2e]
PASSWORD = "a long enough password"
# The grace ends by the very service that beat calls, an hour ahead of its time.
END_GRACES = """
from datetime import timedelta
from accounts.services.keys import end_graces
from turnpike.kernel import clock
print(end_graces(at=clock.utc_now() + timedelta(hours=1)))
"""


def create_key(visitor: Visitor, name: str, **fields: str) -> str:
    """Make a key through the form; its secret."""
    page = visitor.page
    visitor.go("/console/keys?new=1")
    form = page.locator("#new-key")
    form.get_by_label("Name", exact=True).fill(name)
    for label, value in fields.items():
        form.get_by_label(label.replace("_", " ")).fill(value)
    form.get_by_role("button", name="Create key").click()
    return page.locator("#secret").inner_text()


def rotate(page: Page, name: str, *, grace: str) -> str:
    """Replace a key by a new one; its secret."""
    page.get_by_role("button", name=f"Rotate {name}").click()
    dialog = page.get_by_role("dialog", name=f"Rotate {name}")
    dialog.get_by_label("Grace period of the old key").select_option(grace)
    dialog.get_by_role("button", name="Rotate key").click()
    return page.locator("#secret").inner_text()


def status(platform: Platform, secret: str, **fields: Any) -> int:
    """What a request with a key is answered."""
    return post_message(platform.base_url, secret, **fields)[0]


def test_a_rotated_key_works_through_its_grace_and_not_after(
    owner: Visitor, platform: Platform
) -> None:
    old = create_key(owner, "graceful")
    owner.page.get_by_role("link", name="I have kept it").click()
    new = rotate(owner.page, "graceful", grace="3600")

    assert (status(platform, old), status(platform, new)) == (200, 200)
    ended = platform.command("shell", "--no-imports", "-c", END_GRACES)
    assert ended.split()[-1] == "1"
    assert (status(platform, old), status(platform, new)) == (401, 200)


def test_a_budget_blocks_until_it_is_raised(owner: Visitor, platform: Platform) -> None:
    secret = create_key(owner, "frugal", Monthly_limit="0.10")
    owner.page.get_by_role("link", name="I have kept it").click()

    assert status(platform, secret) == 200
    refused, body = post_message(platform.base_url, secret, max_tokens=32_000)
    assert (refused, body["error"]["type"]) == (402, "billing_error")
    assert "budget" in body["error"]["message"]

    owner.page.get_by_role("link", name="frugal", exact=True).click()
    owner.page.get_by_label("Monthly limit").fill("5")
    owner.page.get_by_role("button", name="Save").click()
    owner.page.wait_for_load_state()
    assert status(platform, secret, max_tokens=32_000) == 200


def test_an_invited_person_joins_makes_a_key_and_finds_their_first_request(
    owner: Visitor, browser: Browser, platform: Platform
) -> None:
    page = owner.page
    owner.go("/console/members")
    page.get_by_label("Email").fill("first.call@example.com")
    page.get_by_label("Role", exact=True).select_option("developer")
    page.get_by_role("button", name="Invite").click()
    link = page.locator("#link").inner_text()
    owner.is_accessible("the invitation")

    newcomer = visit(browser, platform)
    newcomer.page.goto(link)
    newcomer.page.get_by_label("Your name").fill("New")
    newcomer.page.get_by_label("Password").fill(PASSWORD)
    newcomer.page.locator("main").get_by_role("button").click()
    newcomer.page.wait_for_url("**/console/")
    secret = create_key(newcomer, "first-key")
    status_of_it, _body = post_message(platform.base_url, secret)
    assert status_of_it == 200
    newcomer.go("/console/logs")
    request = newcomer.page.locator("a[href*='/console/logs/req_']")
    wait_until(lambda: newcomer.page.reload() is not None and request.count() > 0)
    assert receipt_exists(newcomer, str(request.first.get_attribute("href")).split("/")[-1])
    newcomer.page.context.close()


def test_everything_is_reached_by_keys(owner: Visitor, platform: Platform) -> None:
    page = owner.page
    owner.go("/console/")
    page.keyboard.press("Control+k")
    box = page.get_by_role("combobox", name="Search or jump to")
    expect(box).to_be_focused()
    box.fill("usage")
    expect(page.get_by_role("option").first).to_contain_text("Usage")
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/usage")

    page.keyboard.press("w")
    expect(page).to_have_url(re.compile("period=7d"))
    page.keyboard.press("ArrowLeft")
    expect(page).to_have_url(re.compile("back=1"))
    page.keyboard.press("g")
    page.keyboard.press("k")
    page.wait_for_url("**/console/keys")
    page.keyboard.press("?")
    expect(page.locator("#shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#shortcuts")).to_be_hidden()
    owner.is_whole("after the keys")
