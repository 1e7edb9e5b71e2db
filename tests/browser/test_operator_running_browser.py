"""The operator's pages that keep the platform running, in a real browser, each in one look."""

import json

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import NARROW, WIDE, Visitor, visit
from tests.support.running import Platform
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.e2e]
LOOKS = (("light", WIDE, "en"), ("dark", NARROW, "ru"))
DEMO_MINUTES = "0.05"
PAGES = (
    "payments",
    "payments/refunds",
    "codes",
    "health",
    "jobs",
    "logs",
    "audit",
    "ledger",
    "announcements",
    "mail",
    "settings",
)


def looking(
    browser: Browser, platform: Platform, state: object, look: tuple[str, int, str]
) -> Visitor:
    """A window of the operator in one look."""
    theme, width, language = look
    cookies = {"turnpike_theme": theme, "turnpike_language": language}
    return visit(browser, platform, state=state, width=width, cookies=cookies, bypass_csp=True)


def test_pages_are_whole_and_accessible(
    browser: Browser, platform: Platform, operator_state: object
) -> None:
    for number, look in enumerate(LOOKS):
        visitor = looking(browser, platform, operator_state, look)
        for place, name in enumerate(PAGES):
            if place % len(LOOKS) == number:
                visitor.go(f"/operator/{name}")
                visitor.is_accessible(name)
                visitor.photograph(f"operator_{name}")
        visitor.go("/status")
        visitor.is_accessible("status")
        visitor.page.context.close()


def test_an_announcement_is_made_seen_and_ended(
    browser: Browser, platform: Platform, operator_state: object
) -> None:
    visitor = looking(browser, platform, operator_state, LOOKS[0])
    page = visitor.page
    visitor.go("/operator/announcements?new=1")
    page.get_by_label("Title, English").fill("Maintenance on Sunday")
    visitor.is_accessible("the form of an announcement")
    page.locator("#new-note").get_by_role("button", name="Announce").click()
    expect(page.get_by_role("row", name="Maintenance on Sunday")).to_be_visible()

    page.get_by_role("button", name="End now").click()
    expect(page.get_by_role("row", name="Maintenance on Sunday")).to_contain_text("Over")
    page.context.close()


def test_demo_traffic_is_answered_ends_and_fills_the_charts(
    browser: Browser, platform: Platform, operator_state: object
) -> None:
    said = platform.command("demo_traffic", "--minutes", DEMO_MINUTES, "--json")
    report = json.loads(said.strip().splitlines()[-1])
    busiest = max(report["tenants"], key=report["tenants"].get)
    visitor = looking(browser, platform, operator_state, LOOKS[0])
    visitor.go(f"/operator/tenants?q={busiest.split()[0]}")
    visitor.page.get_by_role("link", name=busiest).click()
    bars = visitor.page.get_by_role("figure", name="Charged by day").locator("rect.s1")

    def has_bars() -> bool:
        visitor.page.reload()
        return bars.count() > 0

    wait_until(has_bars)
    visitor.is_whole("a tenant of the demo")
    visitor.page.context.close()

    assert set(report["statuses"]) <= {"200", "400", "402", "404"}
    assert report["statuses"]["200"] > 0
    assert report["requests"] == sum(report["tenants"].values())
