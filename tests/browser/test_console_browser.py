"""The tenant console in a real browser: what people do first, and what every page is held to."""

import re
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import (
    NARROW,
    WIDE,
    Visitor,
    receipt_exists,
    send,
    visit,
)
from tests.support.running import Platform, post_message
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.e2e]
PAGES = (
    *("", "start", "keys", "limits", "usage", "logs"),
    *("billing", "members", "audit", "settings", "data", "status"),
)
# Each page in one of the combinations; all of them in all are `make test-pages`.
LOOKS = (
    ("light", WIDE, "en"),
    ("dark", WIDE, "ru"),
    ("light", NARROW, "zh-hans"),
    ("dark", NARROW, "ru"),
)


def test_a_key_is_shown_once_and_works_until_it_is_rotated(
    owner: Visitor, platform: Platform
) -> None:
    page = owner.page
    owner.go("/console/keys")
    page.get_by_role("button", name="Create key").first.click()
    page.get_by_label("Name", exact=True).fill("browser-key")
    page.locator("#new-key").get_by_role("button", name="Create key").click()
    first = page.locator("#secret").inner_text()

    assert post_message(platform.base_url, first)[0] == 200
    owner.is_whole("the new key")
    owner.photograph("key_created")
    page.get_by_role("link", name="I have kept it").click()
    assert first not in page.content()

    page.get_by_role("button", name="Rotate browser-key").click()
    dialog = page.get_by_role("dialog", name="Rotate browser-key")
    dialog.get_by_label("Grace period of the old key").select_option("0")
    dialog.get_by_role("button", name="Rotate key").click()
    second = page.locator("#secret").inner_text()

    assert second != first
    assert post_message(platform.base_url, first)[0] == 401
    assert post_message(platform.base_url, second)[0] == 200


def test_a_revoked_key_is_refused_and_takes_its_name_to_revoke(
    owner: Visitor, platform: Platform
) -> None:
    secret = platform.issue_key(tenant="Revoked in the browser")["api_key"]
    page = owner.page
    owner.go("/console/keys?new=1")
    page.get_by_label("Name", exact=True).fill("doomed")
    page.locator("#new-key").get_by_role("button", name="Create key").click()
    doomed = page.locator("#secret").inner_text()
    page.get_by_role("link", name="I have kept it").click()

    page.get_by_label("More for doomed").click()
    page.get_by_role("button", name="Revoke", exact=True).locator("visible=true").click()
    dialog = page.get_by_role("dialog", name="Revoke doomed")
    button = dialog.get_by_role("button", name="Revoke for good")
    expect(button).to_be_disabled()
    dialog.get_by_role("textbox").fill("doomed")
    button.click()

    expect(page.get_by_role("status").filter(has_text="revoked for good")).to_be_visible()
    assert post_message(platform.base_url, doomed)[0] == 401
    assert post_message(platform.base_url, secret)[0] == 200


def test_a_request_is_found_by_its_id_and_its_receipt_adds_up(
    owner: Visitor, platform: Platform
) -> None:
    request_id = send(platform)
    page = owner.page
    wait_until(lambda: receipt_exists(owner, request_id))
    owner.go("/console/logs")
    page.get_by_label("Request id or model").fill(request_id)
    page.get_by_role("button", name="Search", exact=True).click()

    expect(page.get_by_role("heading", name="Receipt")).to_be_visible()
    expect(page.locator("#request-id")).to_have_text(request_id)
    charged = page.get_by_role("row", name=re.compile("^Charged")).inner_text()
    cost = page.locator("dt", has_text="Cost").locator("..").locator("dd").inner_text()
    assert charged.split()[-1] == cost
    owner.is_whole("the receipt")
    owner.is_accessible("the receipt")
    owner.photograph("receipt")


def test_limits_move_while_traffic_runs(owner: Visitor, platform: Platform) -> None:
    owner.go("/console/limits")
    meter = owner.page.get_by_role("meter", name="Whole organization: Requests per minute")
    # At 200 a minute a place comes back every 0.3 s; these are enough for the next look.
    for _ in range(20):
        assert post_message(platform.base_url, platform.api_key)[0] == 200

    expect(meter).not_to_have_attribute("aria-valuenow", "0")


def test_language_and_theme_stay_when_chosen(owner: Visitor) -> None:
    page = owner.page
    owner.go("/console/")
    page.get_by_label("Language").click()
    page.get_by_role("button", name="Русский").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Обзор")
    page.get_by_label("Оформление").click()
    page.get_by_role("button", name="Тёмное").click()
    assert page.locator("html").get_attribute("data-theme") == "dark"

    owner.go("/console/usage")

    assert page.locator("html").get_attribute("data-theme") == "dark"
    expect(page.get_by_role("heading", level=1)).to_have_text("Использование")


def test_the_operator_who_belongs_to_no_organization_comes_to_their_own_console(
    browser: Browser, platform: Platform, people: dict[str, dict[str, str]]
) -> None:
    visitor = visit(browser, platform)
    visitor.go("/accounts/login/?next=/console/")
    visitor.page.get_by_label("Email").fill(people["operator"]["email"])
    visitor.page.get_by_label("Password").fill(people["operator"]["password"])
    visitor.page.locator("main").get_by_role("button", name="Sign in").click()

    heading = visitor.page.get_by_role("heading", level=1)
    expect(heading).to_have_text("Dashboard")
    visitor.page.context.close()


@pytest.mark.usefixtures("history")
def test_pages_are_whole_and_accessible(browser: Browser, platform: Platform, state: Any) -> None:
    for number, (theme, width, language) in enumerate(LOOKS):
        cookies = {"turnpike_theme": theme, "turnpike_language": language}
        visitor = visit(
            browser, platform, state=state, width=width, cookies=cookies, bypass_csp=True
        )
        for name in PAGES[number :: len(LOOKS)]:
            visitor.go(f"/console/{name}")
            shown = f"{name or 'overview'}_{theme}_{width}_{language}"
            visitor.is_accessible(shown)
            visitor.photograph(shown)
        visitor.page.context.close()


def test_the_way_in_is_whole_and_accessible(browser: Browser, platform: Platform) -> None:
    visitor = visit(browser, platform, bypass_csp=True)
    for path in ("/", "/accounts/login/"):
        visitor.go(path)
        visitor.is_accessible(path)
    visitor.photograph("sign_in")
    visitor.page.context.close()
