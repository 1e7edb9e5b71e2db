"""The playground in a real browser: it streams through the data plane, and each run is charged."""

import json
import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visitor, receipt_exists
from tests.support.running import Platform
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.e2e]
CHARGED = re.compile(r"\$0\.\d{3,}")
# The room for a text is there a moment before its first words are.
FIRST_PARTS = """() => document.querySelector('.turn[aria-busy="true"] .prose')?.innerText.trim()"""


def say(page: Page, text: str) -> None:
    """Write a message and send it by keyboard."""
    box = page.get_by_label("Message", exact=True)
    box.fill(text)
    box.press("Enter")


def request_id_of(page: Page) -> str:
    """The id of the newest run, once it has a receipt."""
    link = page.locator(".turn").last.locator(".runfacts a")
    expect(link).to_be_visible(timeout=30_000)
    return link.inner_text()


def test_a_run_streams_and_is_charged_once(owner: Visitor, platform: Platform) -> None:
    page = owner.page
    owner.go("/console/playground")
    page.get_by_label("max_tokens").fill("2000")
    say(page, "Tell me about gates. [[tokens=1500]]")

    # Text is there while the answer is still being written.
    partial = page.wait_for_function(FIRST_PARTS).json_value()
    expect(page.locator(".turn").last).not_to_have_attribute("aria-busy", "true", timeout=30_000)
    whole = page.locator(".turn .prose").inner_text()
    request_id = request_id_of(page)
    facts = page.locator(".runfacts").inner_text()

    assert 0 < len(partial) < len(whole)
    assert "1,500" in facts
    assert CHARGED.search(facts)
    owner.is_whole("the playground after a run")
    page.locator(".runfacts a").click()
    expect(page.locator("#request-id")).to_have_text(request_id)
    cost = page.locator("dt", has_text="Cost").locator("..").locator("dd").inner_text()
    assert cost in facts
    expect(page.get_by_text("Playground", exact=True).locator("visible=true").last).to_be_visible()
    billed = json.loads(platform.command("shell", "--no-imports", "-c", COUNT.format(request_id)))
    assert billed == [1, True]
    page.go_back()
    expect(page.locator(".turn .prose")).to_have_text(whole)


# How many rows a request has, and whether they name a person rather than the key's maker.
COUNT = """
import json
from billing.models.usage import UsageEvent
from turnpike.control.scope import platform_scope
from turnpike.kernel import ids
with platform_scope("tests"):
    rows = list(UsageEvent.objects.filter(request_id=ids.parse_public_id("req", "{}")))
print(json.dumps([len(rows), all(row.member.startswith("user_") for row in rows)]))
"""


def test_stopping_ends_the_run_and_charges_what_was_written(
    owner: Visitor, platform: Platform
) -> None:
    page = owner.page
    owner.go("/console/playground")
    page.get_by_label("max_tokens").fill("64000")
    say(page, "A very long one. [[tokens=60000]]")
    page.wait_for_function(FIRST_PARTS)

    page.get_by_role("button", name="Stop").click()

    expect(page.get_by_text("Stopped. What was written until then is charged.")).to_be_visible()
    request_id = request_id_of(page)
    tokens = page.locator(".runfacts b").nth(1).inner_text()
    assert 0 < int(tokens.replace(",", "")) < 60_000
    wait_until(lambda: receipt_exists(owner, request_id))


def test_refusals_are_sentences_and_cost_nothing(owner: Visitor) -> None:
    page = owner.page
    owner.go("/console/playground")
    page.get_by_label("max_tokens").fill("99000000")
    say(page, "Too long.")

    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("The request cannot be accepted as it is.")
    expect(problem).to_contain_text("max_tokens: Input should be less than or equal to")
    expect(problem).to_contain_text("Nothing was charged.")
    page.get_by_label("max_tokens").fill("64")
    problem.get_by_role("button", name="Run again").click()
    request_id_of(page)
    expect(page.locator(".turn")).to_have_count(2)
    expect(problem).to_be_hidden()


def test_tools_thinking_and_code(owner: Visitor) -> None:
    page = owner.page
    owner.go("/console/playground")
    page.get_by_text("Tools", exact=True).click()
    page.get_by_role("button", name="Put in an example").click()
    page.get_by_role("checkbox", name=re.compile("^Thinking")).check()
    say(page, "Use get_weather for `Paris` please.")

    expect(page.get_by_text("The model calls a tool")).to_be_visible()
    page.get_by_label("Result of the tool: get_weather").fill("Sunny, 21 degrees")
    page.get_by_role("button", name="Send the result").click()
    expect(page.locator(".turn")).to_have_count(4)
    request_id_of(page)

    page.get_by_role("button", name="Get code").click()
    dialog = page.get_by_role("dialog")
    for title, word in (
        ("Python", "tool_use_id"),
        ("TypeScript", "new Anthropic()"),
        ("curl", "/v1/messages"),
        ("OpenAI SDK", "chat.completions.create"),
    ):
        dialog.get_by_role("tab", name=title).click()
        expect(dialog.get_by_role("tabpanel")).to_contain_text(word)
    owner.is_whole("the playground's code")
