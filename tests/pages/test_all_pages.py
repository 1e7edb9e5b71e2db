"""Every page of both consoles and of signing in: whole, accessible, translated, in every look."""

import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.conftest import (
    AXE,
    AXE_RUN,
    NARROW,
    WIDE,
    WIDER,
    Visitor,
    receipt_exists,
    send,
    visit,
)
from tests.support.running import Platform
from tests.support.servers import ROOT
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.e2e, pytest.mark.timeout(480)]
LANGUAGES = ("en", "ru", "zh-hans")
LOOKS = (("light", WIDE), ("dark", WIDE), ("dark", NARROW), ("light", NARROW))
PICTURED = (("light", WIDE), ("dark", NARROW))
SCREENS = ROOT / "var" / "screens"
HEIGHT = 860
PAGES_MIN = 70
# Addresses that are not the page's own; who is signed in sees no form for it.
LEADING_ON = ("/console", "/operator", "/accounts/login/")
# Sentences of three words or more that people read; what is data, code or a name is left out.
TEXTS = """() => {
const left = 'pre, code, textarea, kbd, script, style, noscript, option, .chip, .mono, .code,'
  + ' .table__name,'
  + ' .crumbs, .brand, .menu__note, [translate=no], [lang=en], h1.wrap, dd, svg, td';
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const found = [];
for (let node = walker.nextNode(); node; node = walker.nextNode()) {
  const text = node.textContent.trim().replace(/\\s+/g, ' ');
  if (text && !node.parentElement.closest(left)) found.push(text);
}
return found;
}"""
ENGLISH = re.compile(r"(?:\b[A-Za-z]{2,}[,'-]? ){2,}[A-Za-z]{2,}")
OTHER = {"ru": re.compile(r"[\u0400-\u04ff]"), "zh-hans": re.compile(r"[\u4e00-\u9fff]")}


@pytest.fixture(scope="module")
def pages(platform: Platform, browser: Browser, state: Any) -> dict[str, list[str]]:
    """All addresses, with a request that has a receipt."""
    request_id = send(platform)
    visitor = visit(browser, platform, state=state)
    wait_until(lambda: receipt_exists(visitor, request_id))
    visitor.page.context.close()
    call = f"from tests.pages.addresses import main; main({platform.tenant!r}, {request_id!r})"
    printed = platform.command("shell", "--no-imports", "-c", call)
    found: dict[str, list[str]] = json.loads(printed.strip().splitlines()[-1])
    return found


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("part", ["console", "operator", "accounts", "outside"])
def test_every_page_in_every_look(
    browser: Browser,
    platform: Platform,
    pages: dict[str, list[str]],
    state: Any,
    operator_state: Any,
    people: dict[str, dict[str, str]],
    part: str,
    language: str,
) -> None:
    cookies = {"turnpike_language": language}
    who = {"operator": operator_state, "outside": None}.get(part, state)
    visitor = visit(browser, platform, state=who, cookies=cookies)
    if part == "accounts":
        prove(visitor, people["owner"]["password"])
    chosen = [path for path in pages["pages"] if path.startswith(f"/{part}")]
    if part == "outside":
        chosen = ["/", "/accounts/login/", "/accounts/invite?token=none"]
    problems = [problem for path in chosen for problem in look(visitor, path, language)]
    visitor.page.context.close()

    assert chosen
    assert problems == [], "\n".join(problems)


def test_every_page_has_an_object_to_show(pages: dict[str, list[str]]) -> None:
    assert len(pages["pages"]) > PAGES_MIN
    assert pages["lacking"] == []


def prove(visitor: Visitor, password: str) -> None:
    """Prove who one is once more, as pages about factors want it."""
    visitor.go("/accounts/reauthenticate/?next=/accounts/2fa/")
    visitor.page.locator("[type=password]").fill(password)
    visitor.page.locator("main").get_by_role("button").first.click()
    visitor.arrives("/accounts/2fa/")


def look(visitor: Visitor, path: str, language: str) -> list[str]:
    """Everything that is wrong with a page, in all looks; pictures of it are kept."""
    page, problems = visitor.page, []
    page.set_viewport_size({"width": WIDE, "height": HEIGHT})
    answer = page.goto(visitor.platform.base_url + path)
    if answer is None or answer.status >= 400:
        return [f"{path}: {answer.status if answer else 'no answer'}"]
    if urlsplit(page.url).path != path.split("?")[0] and path not in LEADING_ON:
        problems.append(f"led on to {page.url}")
    page.evaluate(AXE)
    problems += [f"{language} {text}" for text in untranslated(page, language)]
    if "<c-" in page.content():
        problems.append("a component that was not rendered")
    for theme, width in LOOKS:
        page.set_viewport_size({"width": width, "height": HEIGHT})
        page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
        named = f"{theme} {width} {language}"
        problems += [f"{named} too wide: {item}" for item in page.evaluate(WIDER)]
        problems += [f"{named} axe: {item}" for item in page.evaluate(AXE_RUN)]
        if (theme, width) in PICTURED:
            photograph(page, path, f"{theme}_{width}_{language}")
    problems += visitor.complaints
    visitor.complaints.clear()
    return [f"{path}: {problem}" for problem in problems]


def untranslated(page: Page, language: str) -> list[str]:
    """Sentences in English on a page that should have none."""
    if language == "en":
        return []
    texts: list[str] = page.evaluate(TEXTS)
    return [text for text in texts if ENGLISH.search(text) and not OTHER[language].search(text)]


def photograph(page: Page, path: str, named: str) -> None:
    """Keep a picture as an artefact."""
    folder = SCREENS / named
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^a-z0-9-]+", "_", path.strip("/").lower()) or "start"
    page.screenshot(path=folder / f"{name[:80]}.png")
