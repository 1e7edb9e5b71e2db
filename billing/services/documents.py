"""file_of: a document as PDF, rendered once in each language from what is frozen, kept with a hash.

Where the libraries that WeasyPrint needs are missing there is the page for printing instead.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from django.contrib.staticfiles import finders
from django.template.loader import render_to_string
from django.utils.translation import override

from billing.models.invoices import LANGUAGES, Invoice, InvoiceFile
from billing.queries.documents import sheet_of
from turnpike.control.scope import platform_scope
from turnpike.kernel.errors import Conflict, InvalidInput, Unavailable

TEMPLATE = "billing/document.html"
STYLE = "turnpike/document.css"
LANGUAGE_CODES = frozenset(code for code, _ in LANGUAGES)
# What a document may load: its style and fonts, from where they lie, and nothing from anywhere.
ASSETS = "https://assets.invalid/"


def file_of(*, document: int, language: str = "") -> InvoiceFile:
    """The document's PDF in a language (its own where empty), made at first use and then kept."""
    with platform_scope("billing.file_of"):
        row = Invoice.objects.select_related("period", "corrects").get(pk=document)
        if row.status == Invoice.Status.DRAFT:
            raise Conflict("A draft is not printed: finalize it first.")
        chosen = _checked(language or row.language)
        found = row.files.filter(language=chosen).first()
        if found is not None:
            return found
        content = render_pdf(row, language=chosen)
        made = InvoiceFile(
            invoice=row,
            tenant_id=row.tenant_id,
            language=chosen,
            content=content,
            sha256=hashlib.sha256(content).hexdigest(),
        )
        # Of two that render at once, the first one's file is kept.
        InvoiceFile.objects.bulk_create([made], ignore_conflicts=True)
        return InvoiceFile.objects.get(invoice=row, language=chosen)


def render_html(row: Invoice, *, language: str, **context: Any) -> str:
    """The document as a page."""
    with override(_checked(language)):
        return render_to_string(
            TEMPLATE,
            {"sheet": sheet_of(row), "language": language, "style": "", "icon": "", **context},
        )


def render_pdf(row: Invoice, *, language: str) -> bytes:
    """The document as PDF. Raises Unavailable where WeasyPrint cannot be loaded."""
    weasyprint = _weasyprint()
    html = render_html(row, language=language, style=f"{ASSETS}{STYLE}")
    document = weasyprint.HTML(string=html, base_url=ASSETS, url_fetcher=_asset_fetcher())
    content: bytes = document.write_pdf(pdf_identifier=row.uuid.bytes)
    return content


def can_render() -> bool:
    """Whether PDFs can be made here."""
    try:
        _weasyprint()
    except Unavailable:
        return False
    return True


@cache
def _weasyprint() -> Any:
    try:
        import weasyprint
    except (ImportError, OSError) as error:
        raise Unavailable("PDFs cannot be made here; print the page instead.") from error
    return weasyprint


@cache
def _asset_fetcher() -> Any:
    from weasyprint.urls import URLFetcher, URLFetcherResponse

    class AssetFetcher(URLFetcher):  # type: ignore[misc]
        """Reads our own assets from where they lie; everything else is refused."""

        def fetch(self, url: str, headers: Any = None) -> Any:
            """An asset by its address."""
            path = url.removeprefix(ASSETS) if url.startswith(ASSETS) else ""
            found = str(finders.find(path) or "") if path else ""
            if not found:
                raise ValueError(f"Documents load their own assets alone, not {url[:100]!r}.")
            kind = "text/css" if found.endswith(".css") else "font/woff2"
            content = Path(found).read_bytes()
            return URLFetcherResponse(url, body=content, headers={"Content-Type": kind})

    return AssetFetcher()


def _checked(language: str) -> str:
    if language not in LANGUAGE_CODES:
        raise InvalidInput(f"There is no language {language[:20]!r}.", field="language")
    return language
