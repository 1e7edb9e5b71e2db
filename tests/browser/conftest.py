"""A real Chromium on the running platform, and what every page is held to.

Playwright's own pytest plugin keeps its event loop for the whole session, in which asynchronous
tests of the same worker cannot run; here it lives as long as a module.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.support.running import Platform
from tests.support.servers import ROOT

ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text()
AXE_RUN = """axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'best-practice']})
.then(result => result.violations.map(item => item.id + ': ' + item.nodes[0].html.slice(0, 200)))"""
# What sticks out to the right, if the page can be scrolled there.
WIDER = """document.documentElement.scrollWidth <= window.innerWidth ? [] :
[...document.querySelectorAll('body *')]
.filter(element => element.getBoundingClientRect().right > window.innerWidth)
.map(element => element.outerHTML.slice(0, 200))"""
SCREENSHOTS = ROOT / "var" / "screenshots"
WIDE, NARROW = 1360, 390
HEIGHT = 860
TIMEOUT_MS = 10_000


def find_chromium() -> str | None:
    """`$CHROMIUM`, or one on PATH."""
    names = ("chromium", "chromium-browser", "google-chrome")
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

    def sign_in(self, person: dict[str, str]) -> None:
        """Through the form."""
        self.go("/accounts/login/?next=/console/")
        self.page.get_by_label("Email").fill(person["email"])
        self.page.get_by_label("Password").fill(person["password"])
        self.page.locator("main").get_by_role("button", name="Sign in").click()
        self.page.wait_for_url("**/console/")


def visit(
    browser: Browser, platform: Platform, *, state: Any = None, width: int = WIDE, **options: Any
) -> Visitor:
    """A new window, in English and light unless cookies say otherwise."""
    cookies: dict[str, str] = options.pop("cookies", {})
    context: BrowserContext = browser.new_context(
        viewport={"width": width, "height": HEIGHT}, storage_state=state, **options
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
