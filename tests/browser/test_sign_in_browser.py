"""An invitation, a passkey and a code as second factor, in a real browser."""

import dataclasses
import hashlib
import hmac
import struct
from base64 import b32decode
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Visitor, visit
from tests.support.running import Platform
from turnpike.kernel import clock

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
STEP_SECONDS, DIGITS = 30, 6
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
    token = platform.command("shell", "--no-imports", "-c", call).split()[-1]
    page = visitor.page
    visitor.go(f"/accounts/invite?token={token}")
    page.get_by_label("Your name").fill("New")
    page.get_by_label("Password").fill(PASSWORD)
    page.locator("main").get_by_role("button").click()
    visitor.arrives("/console/")
    return page


def prove(page: Page) -> None:
    """Give the password where it is asked for once more."""
    if page.get_by_label("Password").is_visible():
        page.get_by_label("Password").fill(PASSWORD)
        page.locator("main").get_by_role("button").first.click()


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
    prove(page)
    page.get_by_label("Name").fill("Laptop")
    page.locator("#id_passwordless").check()
    page.locator("#mfa_webauthn_add").click()
    page.wait_for_url("**/2fa/recovery-codes/**")
    somebody.go("/accounts/2fa/webauthn/")
    expect(page.get_by_role("row", name="Laptop")).to_be_visible()
    page.context.clear_cookies()
    somebody.go("/accounts/login/?next=/console/")
    page.locator("#passkey_login").click()

    somebody.arrives("/console/")
    somebody.is_whole("after a passkey")


def code_of(secret: str) -> str:
    """What an authenticator app shows now (RFC 6238)."""
    step = clock.now_ms() // 1_000 // STEP_SECONDS
    digest = hmac.new(b32decode(secret), struct.pack(">Q", step), hashlib.sha1).digest()
    (number,) = struct.unpack_from(">I", digest, digest[-1] & 15)
    return str((number & 0x7FFFFFFF) % 10**DIGITS).zfill(DIGITS)


def give(page: Page, code: str) -> None:
    """Type a code and send it; what is answered is a page, whatever it says."""
    form = page.locator("main form").first
    form.get_by_role("textbox").last.fill(code)
    with page.expect_navigation():
        form.get_by_role("button").first.click()


def give_current(page: Page, secret: str) -> None:
    """Type what the app shows; once more where it changed on the way, as people do."""
    before = page.url
    give(page, code_of(secret))
    if page.url == before:
        give(page, code_of(secret))


def sign_out_and_in(visitor: Visitor, *, email: str) -> None:
    """Until the page that asks for a code."""
    page = visitor.page
    visitor.go("/console/")
    page.get_by_label("Account").click()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/accounts/login/**")
    visitor.go("/accounts/login/?next=/console/")
    page.get_by_label("Email").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.locator("main").get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/2fa/authenticate/**")


def test_a_code_is_asked_for_and_each_recovery_code_works_once(somebody: Visitor) -> None:
    email, page = "factor@example.com", somebody.page
    join(somebody, email=email, role="viewer")
    somebody.go("/accounts/2fa/totp/activate/")
    prove(page)
    secret = page.locator("#authenticator_secret").input_value()
    give_current(page, secret)
    page.wait_for_url("**/2fa/recovery-codes/**")
    somebody.is_whole("the recovery codes")
    somebody.is_accessible("the recovery codes")
    recovery = page.locator("#recovery_codes").input_value().split()

    sign_out_and_in(somebody, email=email)
    somebody.is_accessible("the page that asks for a code")
    give(page, "000000")
    expect(page.get_by_text("Incorrect code")).to_be_visible()
    give_current(page, secret)
    somebody.arrives("/console/")

    sign_out_and_in(somebody, email=email)
    give(page, recovery[0])
    somebody.arrives("/console/")
    sign_out_and_in(somebody, email=email)
    give(page, recovery[0])
    expect(page.get_by_text("Incorrect code")).to_be_visible()
