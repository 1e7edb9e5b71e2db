"""The operator console in a real browser: what operators do, and what every page is held to."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import NARROW, WIDE, Visitor, visit
from tests.support.running import Platform, post_message

pytestmark = [pytest.mark.browser, pytest.mark.e2e]
MODEL = "claude-sonnet-4-5-20250929"
LOOKS = (
    ("light", WIDE, "en"),
    ("dark", WIDE, "ru"),
    ("light", NARROW, "zh-hans"),
    ("dark", NARROW, "ru"),
)


@pytest.fixture
def operator(browser: Browser, platform: Platform, operator_state: Any) -> Iterator[Visitor]:
    """The operator at a window."""
    visitor = visit(browser, platform, state=operator_state)
    yield visitor
    visitor.page.context.close()


def test_a_tenant_is_created_suspended_and_restored(operator: Visitor, platform: Platform) -> None:
    key = platform.issue_key(tenant="Stopped in the browser")["api_key"]
    assert post_message(platform.base_url, key)[0] == 200
    page = operator.page
    operator.go("/operator/tenants?q=Stopped")
    page.get_by_role("link", name="Stopped in the browser").click()

    page.locator("summary", has_text="Suspend").click()
    form = page.locator("details", has_text="Suspend")
    form.get_by_label("Reason").fill("did not pay")
    form.get_by_role("button", name="Suspend").click()
    expect(page.get_by_text("Suspended: did not pay")).to_be_visible()
    assert post_message(platform.base_url, key)[0] == 403

    page.locator("summary", has_text="Restore").click()
    form = page.locator("details", has_text="Restore")
    form.get_by_label("Reason").fill("has paid")
    form.get_by_role("button", name="Restore").click()
    expect(page.get_by_role("status").filter(has_text="served again")).to_be_visible()
    assert post_message(platform.base_url, key)[0] == 200


def test_a_model_is_stopped_for_everybody_by_the_kill_switch(
    operator: Visitor, platform: Platform
) -> None:
    page = operator.page
    operator.go("/operator/live")
    page.locator("summary", has_text="Stop a model").click()
    form = page.locator("details", has_text="Stop a model")
    form.get_by_label("Model").select_option("claude-haiku-4-5-20251001")
    form.get_by_label("Reason").fill("it misbehaves")
    form.get_by_role("button", name="Stop a model").click()
    expect(page.get_by_role("heading", name="Switched off now")).to_be_visible()
    assert post_message(platform.base_url, platform.api_key, model="claude-haiku-4-5")[0] == 404

    page.locator("summary", has_text="claude-haiku-4-5-20251001").click()
    form = page.locator("details", has_text="Model that is not sold")
    form.get_by_label("Reason").fill("it behaves again")
    form.get_by_role("button", name="Switch on").click()
    expect(page.get_by_role("status").filter(has_text="switched on again")).to_be_visible()
    assert post_message(platform.base_url, platform.api_key, model="claude-haiku-4-5")[0] == 200


def test_looking_at_a_tenant_changes_nothing(operator: Visitor, platform: Platform) -> None:
    page = operator.page
    operator.go(f"/operator/tenants/{platform.tenant}")
    page.locator("summary", has_text="View as tenant").click()
    form = page.locator("details", has_text="View as tenant")
    form.get_by_label("Reason").fill("they asked for help")
    form.get_by_role("button", name="Look at the console").click()

    banner = page.get_by_role("region", name="Looking as an operator")
    expect(banner).to_be_visible()
    operator.go("/console/settings")
    expect(page.get_by_role("region", name="Looking as an operator")).to_be_visible()
    operator.photograph("operator_viewing")
    banner.get_by_role("button", name="Stop looking").click()
    expect(page).to_have_url(re.compile(r"/operator/tenants/ten_"))


@pytest.mark.usefixtures("history")
def test_pages_are_whole_and_accessible(
    browser: Browser, platform: Platform, operator_state: Any
) -> None:
    names = pages(platform)
    for number, (theme, width, language) in enumerate(LOOKS):
        cookies = {"turnpike_theme": theme, "turnpike_language": language}
        visitor = visit(
            browser, platform, state=operator_state, width=width, cookies=cookies, bypass_csp=True
        )
        for place, (name, path) in enumerate(names.items()):
            if place % len(LOOKS) != number:
                continue
            visitor.go(f"/operator/{path}")
            shown = f"operator_{name}_{theme}_{width}_{language}"
            visitor.is_accessible(shown)
            visitor.photograph(shown)
        visitor.page.context.close()


def pages(platform: Platform) -> dict[str, str]:
    """The pages of the operator console by the name of their pictures."""
    tenant = f"tenants/{platform.tenant}"
    tabs = ("keys", "members", "limits", "billing", "requests", "audit")
    return {
        "dashboard": "",
        "tenants": "tenants",
        "tenants_new": "tenants?new=1",
        "tenant": tenant,
        **{f"tenant_{tab}": f"{tenant}/{tab}" for tab in tabs},
        "tiers": "tiers",
        "tier": "tiers/pro",
        "models": "models",
        "model": f"models/{MODEL}",
        "prices": "prices",
        "price": f"prices/1/{MODEL}",
        "upstreams": "upstreams?new=1",
        "upstream": "upstreams/1",
        "live": "live",
        "users": "users?q=demo",
    }
