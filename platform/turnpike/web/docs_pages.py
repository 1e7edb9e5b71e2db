"""Docs: the handbook in the console, and the same pages as Markdown for everybody and for models.

In the console they show the organization's own models and limits; what is public shows neither.
"""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.translation import get_language, override
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from accounts.console.pages import TenantPage
from billing.console.models import list_offers
from billing.models import CatalogModel
from billing.snapshots import tier_of_tenant
from turnpike.contracts.snapshots import Limits
from turnpike.control import formats
from turnpike.control.caller import Power
from turnpike.kernel.errors import NotFound
from turnpike.web.getting_started import examples
from turnpike.web.handbook import Filling, Page, find_page, list_pages, search
from turnpike.web.keys import example_model

WORDS_LENGTH_MAX = 100
MODELS_SHOWN = 8
MARKDOWN = "text/markdown; charset=utf-8"
PLAIN = "text/plain; charset=utf-8"
LANGUAGES = frozenset(dict(settings.LANGUAGES))


class DocsPage(TenantPage):
    """The index, with a search over all pages."""

    powers = {"GET": Power.TENANT_READ}

    def get(self, request: HttpRequest) -> HttpResponse:
        """All pages, or those that hold what was searched for."""
        words = request.GET.get("q", "").strip()[:WORDS_LENGTH_MAX]
        pages = list_pages(language=language(), filling=own_filling(self.tenant))
        context = {"pages": pages, "words": words, "found": search(pages, words)}
        return self.page("turnpike/docs.html", {**context, "section": "console-docs"})


class DocPage(TenantPage):
    """One page of the handbook."""

    powers = {"GET": Power.TENANT_READ}

    def get(self, _request: HttpRequest, slug: str) -> HttpResponse:
        """The page between its neighbours."""
        pages = list_pages(language=language(), filling=own_filling(self.tenant))
        place = next((place for place, page in enumerate(pages) if page.slug == slug), None)
        if place is None:
            raise NotFound("There is no such page.")
        return self.page(
            "turnpike/doc.html",
            {
                "doc": pages[place],
                "pages": pages,
                "before": pages[place - 1] if place else None,
                "after": pages[place + 1] if place + 1 < len(pages) else None,
                "section": "console-docs",
            },
        )


@require_safe
def markdown(request: HttpRequest, slug: str) -> HttpResponse:
    """A page as Markdown, in the language of `?lang=` or of the reader."""
    chosen = request.GET.get("lang", "")
    with override(chosen if chosen in LANGUAGES else language()):
        page = find_page(slug, language=language(), filling=public_filling())
    if page is None:
        return HttpResponse("There is nothing here.\n", status=404, content_type=PLAIN)
    return _public(page.text, content_type=MARKDOWN)


@require_safe
def llms(_request: HttpRequest) -> HttpResponse:
    """What there is to read, for language models."""
    with override("en"):
        pages = list_pages(language="en", filling=public_filling())
    base = settings.PUBLIC_BASE_URL
    lines = [
        "# Turnpike",
        "",
        f"> Metered access to Claude-style models at {base}. Speaks Anthropic's Messages API and"
        " OpenAI's chat completions; existing SDKs work by changing base URL and key.",
        "",
        "## Docs",
        "",
        *(f"- [{page.title}]({base}{_address(page)}): {page.summary}" for page in pages),
        "",
        "## Optional",
        "",
        f"- [Everything in one file]({base}{reverse('llms-full')})",
        f"- [Schema of the management API]({base}{reverse('schema')})",
        "",
    ]
    return _public("\n".join(lines), content_type=PLAIN)


@require_safe
def llms_full(_request: HttpRequest) -> HttpResponse:
    """All pages in one text."""
    with override("en"):
        pages = list_pages(language="en", filling=public_filling())
    return _public("\n\n".join(page.text for page in pages), content_type=PLAIN)


def language() -> str:
    """The language in use, one that the handbook is written in."""
    current = get_language() or "en"
    return current if current in LANGUAGES else "en"


def own_filling(tenant: int) -> Filling:
    """With the organization's own models and limits."""
    rows = [offer.model for offer in list_offers(tenant).open_offers][:MODELS_SHOWN]
    try:
        bought = tier_of_tenant(tenant)
        limits = _limits(bought.terms.overrides.over(bought.tier.limits))
    except NotFound:
        limits = ""
    return _filling(console=reverse("console"), models=_models(rows), limits=limits)


def public_filling() -> Filling:
    """With what everybody may know."""
    active = CatalogModel.objects.filter(is_enabled=True, lifecycle="active")
    rows = list(active.order_by("-released_at", "model")[:MODELS_SHOWN])
    console = settings.PUBLIC_BASE_URL + reverse("console")
    limits = _("Your own numbers stand on the page Limits of the console.")
    return _filling(console=console, models=_models(rows), limits=limits)


def _filling(*, console: str, models: str, limits: str) -> Filling:
    model, base_url = example_model(), settings.PUBLIC_BASE_URL
    return Filling(
        values={
            "base_url": base_url,
            "model": model,
            "console": console,
            "models": models,
            "limits": limits,
        },
        examples={tab["id"]: tab["code"] for tab in examples(base_url, model)},
    )


def _models(rows: list[CatalogModel]) -> str:
    titles = (_("Model"), _("Name"), _("Context"))
    head = f"| {' | '.join(titles)} |\n|---|---|---|"
    lines = (
        f"| `{row.model}` | {row.display_name} |"
        f" {formats.compact(row.max_input_tokens) if row.max_input_tokens else '–'} |"
        for row in rows
    )
    return "\n".join([head, *lines])


def _limits(limits: Limits) -> str:
    titles = (
        (_("Requests per minute"), limits.requests_per_minute),
        (_("Tokens per minute"), limits.tokens_per_minute),
        (_("Input tokens per minute"), limits.input_tokens_per_minute),
        (_("Output tokens per minute"), limits.output_tokens_per_minute),
        (_("At once"), limits.concurrency),
    )
    lines = [f"| {title} | {formats.number(value)} |" for title, value in titles if value]
    if not lines:
        return ""
    name, value = _("Limit"), _("Your limit")
    head = f"| {name} | {value} |\n|---|---|"
    return "\n".join([head, *lines])


def _address(page: Page) -> str:
    return reverse("docs-markdown", args=[page.slug])


def _public(text: str, *, content_type: str) -> HttpResponse:
    answer = HttpResponse(text, content_type=content_type)
    answer["cache-control"] = "public, max-age=300"
    patch_vary_headers(answer, ["accept-language", "cookie"])
    return answer
