"""A real Chromium on the running platform, and what every page is held to.

Playwright's own pytest plugin keeps its event loop for the whole session, in which asynchronous
tests of the same worker cannot run; here it lives as long as a module.
"""

import json
import os
import shutil
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    expect,
    sync_playwright,
)

from tests.support.running import Platform
from tests.support.servers import ROOT

ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text()
AXE_RUN = """axe.run(document, {
    runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'best-practice'],
    resultTypes: ['violations'],  // all of these; of what passes, one each
})
.then(result => result.violations.map(item => item.id + ': ' + item.nodes[0].html.slice(0, 200)))"""
# What sticks out to the right, if the page can be scrolled there.
WIDER = """document.documentElement.scrollWidth <= window.innerWidth ? [] :
[...document.querySelectorAll('body *')]
.filter(element => element.getBoundingClientRect().right > window.innerWidth)
.map(element => element.outerHTML.slice(0, 200))"""
SCREENSHOTS = ROOT / "var" / "screenshots"
WIDE, NARROW = 1360, 390
HEIGHT = 860
TIMEOUT_MS = 30_000
expect.set_options(timeout=TIMEOUT_MS)


def find_chromium() -> str | None:
    """`$CHROMIUM`, or one on PATH: its headless shell first, which takes half the time."""
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    found = (path for name in names if (path := shutil.which(name)))
    return os.environ.get("CHROMIUM") or next(found, None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a browser these are skipped, unless somebody insists on one."""
    if find_chromium() is not None:
        return
    if os.environ.get("REQUIRE_BROWSER") == "1":
        raise pytest.UsageError("REQUIRE_BROWSER=1, and neither $CHROMIUM nor PATH has a Chromium.")
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason="No Chromium: set CHROMIUM to one."))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for the tests of one module."""
    path = find_chromium()
    assert path is not None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@dataclass
class Visitor:
    """Somebody at a window; what the browser complained about is kept."""

    platform: Platform
    page: Page
    complaints: list[str] = field(default_factory=list)

    def go(self, path: str) -> None:
        """Open an address of the platform and see that it is whole."""
        answer = self.page.goto(self.platform.base_url + path)
        assert answer is not None
        assert answer.ok, f"{path}: {answer.status}"
        self.is_whole(path)

    def is_whole(self, where: str) -> None:
        """No complaint of the browser, nothing to scroll sideways to, no leftover of a template."""
        assert self.complaints == [], where
        wider = self.page.evaluate(WIDER)
        assert wider == [], where
        assert "<c-" not in self.page.content()

    def is_accessible(self, where: str) -> None:
        """Axe finds nothing."""
        self.page.evaluate(AXE)
        assert self.page.evaluate(AXE_RUN) == [], where

    def photograph(self, name: str) -> None:
        """Keep a picture as an artefact."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")

    def sign_in(self, person: dict[str, str], *, to: str = "/console/") -> None:
        """Through the form."""
        self.go(f"/accounts/login/?next={to}")
        self.page.get_by_label("Email").fill(person["email"])
        self.page.get_by_label("Password").fill(person["password"])
        self.page.locator("main").get_by_role("button", name="Sign in").click()
        self.arrives(to)

    def arrives(self, path: str) -> None:
        """Wait until the window is at an address, and not at one that only names it."""
        self.page.wait_for_url(self.platform.base_url + path)


def visit(
    browser: Browser, platform: Platform, *, state: Any = None, width: int = WIDE, **options: Any
) -> Visitor:
    """A new window, in English and light unless cookies say otherwise."""
    cookies: dict[str, str] = options.pop("cookies", {})
    context: BrowserContext = browser.new_context(
        viewport={"width": width, "height": HEIGHT},
        storage_state=state,
        # Colours are checked when they have arrived, not on their way.
        reduced_motion="reduce",
        **options,
    )
    context.set_default_timeout(TIMEOUT_MS)
    for name, value in {"turnpike_theme": "light", **cookies}.items():
        context.add_cookies([{"name": name, "value": value, "url": platform.base_url}])
    visitor = Visitor(platform=platform, page=context.new_page())

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            visitor.complaints.append(message.text)

    visitor.page.on("console", note)
    visitor.page.on("pageerror", lambda error: visitor.complaints.append(str(error)))
    return visitor


@pytest.fixture(scope="module")
def people(platform: Platform) -> dict[str, dict[str, str]]:
    """Who can sign in, by what bootstrap kept."""
    found: dict[str, dict[str, str]] = json.loads((platform.state_dir / "demo.json").read_text())
    return found


@pytest.fixture(scope="session")
def sign_ins() -> dict[str, Any]:
    """The cookies of those whom the form has let in: once for all modules."""
    return {}


@pytest.fixture(scope="module")
def state(
    browser: Browser,
    platform: Platform,
    people: dict[str, dict[str, str]],
    sign_ins: dict[str, Any],
) -> Any:
    """The cookies of the demo's owner, signed in through the form."""
    if "owner" not in sign_ins:
        visitor = visit(browser, platform)
        visitor.sign_in(people["owner"])
        sign_ins["owner"] = visitor.page.context.storage_state()
        visitor.page.context.close()
    return sign_ins["owner"]


@pytest.fixture(scope="module")
def operator_state(
    browser: Browser,
    platform: Platform,
    people: dict[str, dict[str, str]],
    sign_ins: dict[str, Any],
) -> Any:
    """The cookies of the platform's operator, signed in through the form."""
    if "operator" not in sign_ins:
        visitor = visit(browser, platform)
        visitor.sign_in(people["operator"], to="/operator/")
        sign_ins["operator"] = visitor.page.context.storage_state()
        visitor.page.context.close()
    return sign_ins["operator"]


@pytest.fixture(scope="session")
def history(platform: Platform) -> None:
    """A month of usage, so that charts have something to show."""
    call = f"from tests.browser.history import write; write({platform.tenant!r})"
    platform.command("shell", "--no-imports", "-c", call)


@pytest.fixture
def owner(browser: Browser, platform: Platform, state: Any) -> Iterator[Visitor]:
    """The demo's owner at a window."""
    visitor = visit(browser, platform, state=state)
    yield visitor
    visitor.page.context.close()


def send(platform: Platform) -> str:
    """Send a small request; its id."""
    body = {
        "model": "claude-sonnet-4-5",
        "max_tokens": 32,
        "messages": [{"role": "user", "content": "Hello"}],
    }
    request = urllib.request.Request(
        f"{platform.base_url}/v1/messages",
        data=json.dumps(body).encode(),
        headers={
            "x-api-key": platform.api_key,
            "anthropic-version": "2023-06-01",
            "content-type": "application/json",
        },
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.headers["request-id"])


def receipt_exists(visitor: Visitor, request_id: str) -> bool:
    """Whether the request has been posted."""
    address = f"{visitor.platform.base_url}/console/logs/{request_id}"
    return visitor.page.request.get(address).ok
