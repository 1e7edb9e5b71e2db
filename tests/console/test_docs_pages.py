"""The handbook: the same pages in all languages, filled in, true, and open to programs."""

import re
from pathlib import Path

import pytest
import redis
from django.test import Client
from django.urls import resolve

from accounts.models import Role
from tests.console.console_world import World, client_for, make_world
from tests.support.servers import ROOT
from turnpike.web import handbook
from turnpike.web.docs_pages import public_filling
from turnpike.web.handbook import FOLDER, SLUGS, find_page, list_pages, search

LANGUAGES = ("en", "zh-hans", "ru")
ERROR = re.compile(r"^\| (\d{3}) \| `(\w+_error|request_too_large)` \|", re.MULTILINE)
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def world(redis_client: redis.Redis, db: None) -> World:
    return make_world(redis_client, days=1)


def source(language: str, slug: str) -> str:
    return (FOLDER / language / f"{slug}.md").read_text()


def test_every_language_has_every_page_and_no_other() -> None:
    for language in LANGUAGES:
        names = {path.stem for path in (FOLDER / language).glob("*")}

        assert names == set(SLUGS)


@pytest.mark.parametrize("language", LANGUAGES[1:])
@pytest.mark.parametrize("slug", SLUGS)
def test_translations_have_the_same_sections_and_the_same_code(slug: str, language: str) -> None:
    english, translated = source("en", slug), source(language, slug)

    assert len(re.findall(r"^## ", translated, re.M)) == len(re.findall(r"^## ", english, re.M))
    assert CODE.findall(translated) == CODE.findall(english)
    assert len(translated) > 0.3 * len(english)
    letters = r"[\u0430-\u044f]" if language == "ru" else r"[\u4e00-\u9fff]"
    assert len(re.findall(letters, translated, re.IGNORECASE)) > 100


@pytest.mark.parametrize("language", LANGUAGES)
def test_summaries_are_plain_words(db: None, language: str) -> None:
    pages = list_pages(language=language, filling=public_filling())

    assert len(pages) == len(SLUGS)
    for page in pages:
        assert len(page.summary) > 10
        assert not set("`[]*#|") & set(page.summary), page.summary


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_error_that_clients_meet_has_an_entry_with_its_cure(language: str) -> None:
    of_clients = (ROOT / "docs" / "errors.md").read_text().split("## On `/api/v1/*`")[0]
    entries = re.findall(r"^## (\d{3}) (\w+)$", source(language, "errors"), re.M)

    assert set(entries) == set(ERROR.findall(of_clients))
    cures = source(language, "errors").count(
        {"ru": "**Что делать", "en": "**Cure"}.get(language, "**解决办法")
    )
    assert cures == len(entries)


def test_shared_code_is_all_used() -> None:
    used = {name for slug in SLUGS for name in re.findall(r"%%code:([^%]+)%%", source("en", slug))}

    assert used == {path.name for path in Path(FOLDER / "code").glob("*")}


@pytest.mark.parametrize("language", LANGUAGES)
def test_pages_are_filled_in_and_their_links_lead_somewhere(world: World, language: str) -> None:
    client = client_for(world.members[Role.VIEWER])
    client.cookies["turnpike_language"] = language
    for slug in SLUGS:
        page = client.get(f"/console/docs/{slug}").content.decode()
        body = page.split("<article", 1)[1].split("</article>", 1)[0]

        assert "%%" not in body
        assert "**" not in re.sub(r"<pre.*?</pre>", "", body, flags=re.DOTALL)
        for address in re.findall(r'href="(/console/[^"#?]*)', body):
            resolve(address)
        for name in re.findall(r'href="([a-z]+)"', body):
            assert name in SLUGS
    assert "<table" in page or slug == "migration"


def test_a_page_that_nobody_wrote_is_not_there(world: World) -> None:
    client = client_for(world.members[Role.VIEWER])

    assert client.get("/console/docs/nothing").status_code == 404
    assert Client().get("/docs/nothing.md").status_code == 404


def test_a_search_finds_pages_by_their_words(world: World) -> None:
    client = client_for(world.members[Role.VIEWER])

    found = client.get("/console/docs", {"q": "retry-after"}).content.decode()
    nothing = client.get("/console/docs", {"q": "<script>xyzzy"}).content.decode()

    assert "/console/docs/limits" in found
    assert "/console/docs/tools" not in found.split("doclist")[1]
    assert "No page has these words." in nothing
    assert "<script>xyzzy" not in nothing


def test_titles_come_first_in_a_search(world: World) -> None:
    pages = list_pages(language="en", filling=public_filling())

    found = search(pages, "limits")

    assert found[0].page.slug == "limits"
    assert len(found) > 1
    assert search(pages, "   ") == []


def test_everybody_may_read_them_as_markdown_and_sees_nothing_of_any_organization(
    world: World,
) -> None:
    visitor, member = Client(), client_for(world.members[Role.OWNER])
    for address in ("/llms.txt", "/llms-full.txt", *(f"/docs/{slug}.md" for slug in SLUGS)):
        answer, of_member = visitor.get(address), member.get(address)

        assert answer.status_code == 200, address
        assert answer["content-type"].startswith("text/")
        assert answer.content == of_member.content
        assert "%%" not in answer.content.decode()
        assert world.shop.tenant.public_id not in answer.content.decode()
    assert "Acme" not in visitor.get("/llms-full.txt").content.decode()


def test_the_index_for_models_names_every_page_by_an_address_that_answers(db: None) -> None:
    client = Client()
    text = client.get("/llms.txt").content.decode()
    addresses = re.findall(r"\]\(http://[^/]+(/docs/[a-z]+\.md)\)", text)

    assert len(addresses) == len(SLUGS)
    assert all(client.get(address).status_code == 200 for address in addresses)


def test_markdown_comes_in_the_language_that_is_asked_for(db: None) -> None:
    client = Client()

    assert client.get("/docs/errors.md?lang=ru").content.decode().startswith("# Ошибки")
    assert client.get("/docs/errors.md?lang=xx").content.decode().startswith("# Errors")
    chinese = client.get("/docs/errors.md", headers={"accept-language": "zh-hans"})
    assert chinese.content.decode().startswith("# 错误")


def test_markup_in_a_page_is_text() -> None:
    page = handbook.Page(slug="x", text="# Title\n\nLead\n\n<script>alert(1)</script>\n")

    assert "<script>" not in page.html()
    assert (
        find_page("../en/errors", language="en", filling=handbook.Filling(values={}, examples={}))
        is None
    )
