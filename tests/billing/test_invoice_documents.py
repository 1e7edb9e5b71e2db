"""Documents as people get them: PDFs in three languages whose figures are the ledger's."""

import hashlib
import re
from datetime import timedelta

import pypdfium2
import pytest
from django.db import DatabaseError, transaction
from django.utils.translation import override

from billing.models.invoices import Invoice, InvoiceFile
from billing.services.billing_details import set_details
from billing.services.credit_notes import credit_invoice
from billing.services.documents import file_of, render_pdf
from tests.billing.invoice_world import (
    ACTOR,
    CLOSED,
    DECEMBER,
    NOVEMBER,
    OCTOBER,
    balances,
    close_months,
    documents,
    event_at,
    invoiced,
    make_partitions,
    post_events,
    postpaid_shop,
    tokens,
    with_seller,
)
from tests.billing.usage_world import Shop, make_shop
from turnpike.control.formats import paid_money
from turnpike.control.scope import platform_scope
from turnpike.kernel.errors import Conflict, InvalidInput
from turnpike.kernel.money import NANOS_PER_UNIT

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("pdf_printer", "months")]
DAY = timedelta(days=1)
TITLES = {"en": "Invoice", "zh-hans": "发票", "ru": "Счёт"}


@pytest.fixture
def months(db: None) -> None:
    make_partitions(OCTOBER, months=3)


@pytest.fixture
def shop() -> Shop:
    with_seller()
    shop = postpaid_shop(name="Ласточка & Söhne 有限公司")
    set_details(
        tenant=shop.number,
        changes={
            "address": "Hauptstraße 5\n10115 Berlin",
            "country": "DE",
            "tax_id": "DE 811 907 980",
            "reference": "PO-4711",
            "language": "ru",
        },
        actor=ACTOR,
    )
    usage = {**tokens(1_234_567, 89_012), "cache_read_input_tokens": 5_000_000}
    post_events([event_at(shop, OCTOBER + n * DAY, usage=usage) for n in range(3)])
    return shop


def text_of(content: bytes) -> str:
    document = pypdfium2.PdfDocument(content)
    pages = [page.get_textpage().get_text_range() for page in document]
    # Spaces of all kinds are one: some amounts have narrow or unbreakable ones.
    return re.sub(r"\s+", " ", " ".join(pages))


def shown(nano: int, currency: str = "USD") -> str:
    return re.sub(r"\s+", " ", paid_money(nano, currency))


@pytest.mark.parametrize("language", TITLES)
def test_the_printed_total_is_what_the_ledger_has(shop: Shop, language: str) -> None:
    invoice = invoiced(shop)

    text = text_of(bytes(file_of(document=invoice.pk, language=language).content))

    with override(language):
        assert shown(balances(shop)["receivable"]) in text
        assert shown(invoice.tax_nano) in text
        for line in invoice.lines.all():
            assert shown(line.amount_nano) in text
    for words in (TITLES[language], "INV-2026-00001", "PO-4711", "Hauptstraße 5", "GB123456789"):
        assert words in text


def test_a_file_is_made_once_in_its_own_language_and_kept_with_its_hash(shop: Shop) -> None:
    invoice = invoiced(shop)

    first = file_of(document=invoice.pk)
    second = file_of(document=invoice.pk)

    assert (first.language, first.pk) == ("ru", second.pk)
    assert first.sha256 == hashlib.sha256(bytes(second.content)).hexdigest()
    with platform_scope("tests"):
        for change in (
            lambda: InvoiceFile.objects.update(sha256=""),
            InvoiceFile.objects.all().delete,
        ):
            with pytest.raises(DatabaseError), transaction.atomic():
                change()


def test_what_changes_later_is_not_on_it(shop: Shop) -> None:
    invoice = invoiced(shop)
    set_details(tenant=shop.number, changes={"address": "Nowhere 1"}, actor=ACTOR)

    text = text_of(bytes(file_of(document=invoice.pk).content))

    assert "Hauptstraße 5" in text
    assert "Nowhere" not in text


def test_a_credit_note_names_what_it_corrects(shop: Shop) -> None:
    invoice = invoiced(shop)
    note = credit_invoice(
        invoice=invoice.pk,
        net=NANOS_PER_UNIT,
        reason="An hour without service",
        idempotency_key="hour",
        at=DECEMBER,
        actor=ACTOR,
    )

    text = text_of(bytes(file_of(document=note.pk, language="en").content))

    for words in ("Credit note", "CN-2026-00001", "INV-2026-00001", "An hour without service"):
        assert words in text
    assert shown(note.total_nano) in text


def test_a_statement_says_what_moved_the_balance() -> None:
    with_seller()
    shop = make_shop(credit=10 * NANOS_PER_UNIT)
    post_events([event_at(shop, OCTOBER + DAY, usage=tokens(1_000_000))])
    close_months(NOVEMBER + CLOSED)
    (statement,) = documents(shop, "statement")

    text = text_of(bytes(file_of(document=statement.pk).content))

    assert "Statement" in text
    assert shown(3 * NANOS_PER_UNIT) in text


def test_drafts_and_unknown_languages_are_refused(shop: Shop) -> None:
    close_months(NOVEMBER + CLOSED)
    (draft,) = documents(shop)

    with pytest.raises(Conflict):
        file_of(document=draft.pk)
    invoice = invoiced(shop)
    with pytest.raises(InvalidInput):
        file_of(document=invoice.pk, language="xx")


def test_a_document_loads_nothing_from_elsewhere(shop: Shop) -> None:
    set_details(
        tenant=shop.number,
        changes={"name": '<img src="http://127.0.0.1:1/x"><link href="file:///etc/passwd">'},
        actor=ACTOR,
    )
    invoice = invoiced(shop)

    with platform_scope("tests"):
        text = text_of(render_pdf(Invoice.objects.get(pk=invoice.pk), language="en"))

    assert "<img" in text
