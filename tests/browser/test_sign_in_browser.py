"""An invitation and a passkey in a real browser, with an authenticator that it plays."""

import dataclasses
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Visitor, visit
from tests.support.running import Platform

pytestmark = [pytest.mark.browser, pytest.mark.e2e]
AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}
PASSWORD = "a long enough password"
INVITE = """
from accounts.models import Tenant
from accounts.services.members import invite_member
from turnpike.control.caller import SYSTEM
from turnpike.control.scope import platform_scope
with platform_scope("tests"):
    tenant = Tenant.objects.get(uuid=Tenant.parse_public_id("{tenant}"))
    print(invite_member(caller=SYSTEM, tenant=tenant, email="{email}", role="{role}").token)
"""


def join(visitor: Visitor, *, email: str, role: str) -> Page:
    """Accept an invitation: a person of one's own, signed in."""
    platform = visitor.platform
    call = INVITE.format(tenant=platform.tenant, email=email, role=role)
    token = platform.manage("shell", "--no-imports", "-c", call).split()[-1]
    page = visitor.page
    visitor.go(f"/accounts/invite?token={token}")
    page.get_by_label("Your name").fill("New")
    page.get_by_label("Password").fill(PASSWORD)
    page.locator("main").get_by_role("button").click()
    page.wait_for_url("**/console/")
    return page


@pytest.fixture
def somebody(browser: Browser, platform: Platform) -> Any:
    """A window at an address that browsers accept passkeys on."""
    local = platform.base_url.replace("127.0.0.1", "localhost")
    visitor = visit(browser, dataclasses.replace(platform, base_url=local))
    yield visitor
    visitor.page.context.close()


def test_a_passkey_is_added_and_signs_in_without_a_password(somebody: Visitor) -> None:
    page = join(somebody, email="passkey@example.com", role="developer")
    devtools = page.context.new_cdp_session(page)
    devtools.send("WebAuthn.enable")
    devtools.send("WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR})

    somebody.go("/accounts/2fa/webauthn/add/")
    if page.get_by_label("Password").is_visible():
        page.get_by_label("Password").fill(PASSWORD)
        page.locator("main").get_by_role("button").first.click()
    page.get_by_label("Name").fill("Laptop")
    page.locator("#id_passwordless").check()
    page.locator("#mfa_webauthn_add").click()
    page.wait_for_url("**/2fa/recovery-codes/**")
    somebody.go("/accounts/2fa/webauthn/")
    expect(page.get_by_role("row", name="Laptop")).to_be_visible()
    page.context.clear_cookies()
    somebody.go("/accounts/login/?next=/console/")
    page.locator("#passkey_login").click()

    # The address of the sign-in page ends with the next one's.
    page.wait_for_url(f"{somebody.platform.base_url}/console/")
    somebody.is_whole("after a passkey")
