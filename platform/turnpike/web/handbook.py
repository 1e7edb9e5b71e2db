"""The handbook: Markdown in three languages, filled with this installation's address and models.

One source for the console's docs, for ``/docs/<page>.md`` and for ``/llms.txt``. What stands
between double percent signs is filled in; `code:` names a file of `docs/code`, which all
languages share.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from django.template.loader import render_to_string
from django.utils.safestring import SafeString
from django.utils.text import slugify
from django.utils.translation import gettext_lazy
from markdown_it import MarkdownIt
from markdown_it.token import Token

FOLDER = Path(__file__).resolve().parent / "docs"
LANGUAGES_OF_CODE = {
    "sh": "Shell",
    "python": "Python",
    "typescript": "TypeScript",
    "json": "JSON",
    "txt": gettext_lazy("Text"),
}
SLUGS = (
    *("quickstart", "authentication", "streaming", "tools", "openai", "limits", "errors"),
    *("billing", "batches", "webhooks", "idempotency", "migration"),
)
FOUND_MAX = 20
SNIPPET_CHARACTERS = 160
_PLACE = re.compile(r"%%([a-z_]+)(?::([a-z0-9_.-]+))?%%")
_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
_MARKS = re.compile(r"[#*`|>]+|\]\([^)]*\)|\[|-{3,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filling:
    """What the places are filled with; `console` is the console's address with a slash."""

    values: Mapping[str, str]
    examples: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """A section of a page."""

    anchor: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page in one language, filled in."""

    slug: str
    text: str

    @property
    def title(self) -> str:
        """What stands in its first line."""
        return self.text.partition("\n")[0].removeprefix("# ").strip()

    @property
    def summary(self) -> str:
        """Its first paragraph, as plain words."""
        first = _LINK.sub(r"\1", self.text.split("\n\n", 2)[1])
        return first.strip().replace("`", "").rstrip(":：")  # noqa: RUF001

    @property
    def headings(self) -> list[Heading]:
        """Its sections."""
        lines = (line for line in self.text.splitlines() if line.startswith("## "))
        titles = (line.removeprefix("## ").strip() for line in lines)
        return [Heading(anchor=anchor_of(title), title=title) for title in titles]

    def html(self) -> SafeString:
        """Its body without the title. The sources are ours, and HTML in them is text."""
        body = self.text.partition("\n")[2]
        # Written by us and escaped by the renderer.
        return SafeString(_renderer().render(body))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A page that a search found, and the words around."""

    page: Page
    snippet: str


def find_page(slug: str, *, language: str, filling: Filling) -> Page | None:
    """A page, in English where the language has none; None where nobody wrote it."""
    if slug not in SLUGS:
        return None
    path = FOLDER / language / f"{slug}.md"
    return Page(slug=slug, text=_fill(_read(path), filling))


def list_pages(*, language: str, filling: Filling) -> list[Page]:
    """All pages in their order."""
    found = (find_page(slug, language=language, filling=filling) for slug in SLUGS)
    return [page for page in found if page is not None]


def search(pages: list[Page], words: str) -> list[Found]:
    """The pages that hold all of the words, those with them in the title first."""
    terms = [term.casefold() for term in words.split()]
    if not terms:
        return []
    found = []
    for page in pages:
        text = _MARKS.sub(" ", page.text)
        folded = text.casefold()
        if all(term in folded for term in terms):
            at = max(0, folded.find(terms[0]) - SNIPPET_CHARACTERS // 3)
            snippet = " ".join(text[at : at + SNIPPET_CHARACTERS].split())
            is_titled = any(term in page.title.casefold() for term in terms)
            found.append((not is_titled, Found(page=page, snippet=snippet)))
    return [item for _rank, item in sorted(found, key=lambda pair: pair[0])][:FOUND_MAX]


def anchor_of(title: str) -> str:
    """The anchor of a heading."""
    return slugify(title, allow_unicode=True)


@cache
def _read(path: Path) -> str:
    return path.read_text()


def _fill(text: str, filling: Filling) -> str:
    def value(found: re.Match[str]) -> str:
        kind, name = found[1], found[2]
        if kind == "code":
            return _fill(_read(FOLDER / "code" / name).rstrip(), filling)
        return filling.examples[name] if kind == "example" else filling.values[kind]

    return _PLACE.sub(value, text)


@cache
def _renderer() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False}).enable("table")
    for name, rule in (("fence", _fence), ("heading_open", _heading), ("link_open", _link)):
        made.add_render_rule(name, rule)
    made.add_render_rule("table_open", lambda *_: '<div class="doc__table"><table>')
    made.add_render_rule("table_close", lambda *_: "</table></div>")
    return made


def _fence(_self: Any, tokens: list[Token], place: int, _options: Any, _env: Any) -> str:
    token = tokens[place]
    name = token.info.strip()
    title = LANGUAGES_OF_CODE.get(name, name)
    context = {"id": f"code-{place}", "title": title, "code": token.content.rstrip()}
    return str(render_to_string("turnpike/docs_code.html", context))


def _heading(self: Any, tokens: list[Token], place: int, options: Any, env: Any) -> str:
    tokens[place].attrSet("id", anchor_of(tokens[place + 1].content))
    return str(self.renderToken(tokens, place, options, env))


def _link(self: Any, tokens: list[Token], place: int, options: Any, env: Any) -> str:
    """Pages name each other as files; in the console they are addresses."""
    address = str(tokens[place].attrGet("href") or "")
    if address.removesuffix(".md") in SLUGS:
        tokens[place].attrSet("href", address.removesuffix(".md"))
    return str(self.renderToken(tokens, place, options, env))
