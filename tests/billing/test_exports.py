"""Tables as files: stable columns, sums that are the ledger's, nobody else's rows, no formulas."""

import dataclasses
import io
import re
from collections import defaultdict
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pyarrow.parquet as pq
import pytest
from django.db.models import Sum
from rest_framework.test import APIClient

from accounts.models import AuditEvent, Role
from billing.console.exports import operator_export_links
from billing.models.ledger import DEBIT, LedgerAccount, LedgerEntry
from billing.models.usage import UsageEvent
from billing.queries import exports
from billing.queries.exports import EXPORTS
from billing.services.wallet import grant_credit
from tests.accounts.factories import make_member, make_user, management_client, signed_in
from tests.billing.export_world import OCTOBER as SPAN
from tests.billing.export_world import csv_rows, fetch, joined, parquet_rows
from tests.billing.invoice_world import (
    CLOSED,
    NOVEMBER,
    OCTOBER,
    close_months,
    event_at,
    finalize_all,
    make_partitions,
    post_events,
    postpaid_shop,
    tokens,
    with_seller,
)
from tests.billing.usage_world import Shop
from tests.console.console_world import client_for
from tests.support.servers import ROOT
from turnpike.contracts.usage import STATUS_OF_RANK
from turnpike.control.caller import Power
from turnpike.control.exports import STREAMS_MAX, Chunk, CsvEncoder, Kind, TableStream
from turnpike.control.formats import spreadsheet_cell
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)
ALWAYS = {"starting_at": "2026-10-01T00:00:00Z", "ending_at": "2027-09-01T00:00:00Z"}
TABLES = tuple(EXPORTS)
# What programs rely on: columns are added at the end, and never renamed or moved.
GOLDEN = {
    "ledger": "posting_id line posted_at tenant_id kind account account_ref side amount"
    " balance_after currency key reason",
    "usage": "request_id revision started_at finished_at tenant_id workspace_id api_key_id member"
    " model requested_model tier context_window status http_status stop_reason error_type stream"
    " batch late input_tokens output_tokens cache_write_5m_tokens cache_write_1h_tokens"
    " cache_read_tokens thinking_tokens web_search_requests input_amount output_amount"
    " cache_write_5m_amount cache_write_1h_amount cache_read_amount web_search_amount amount waived"
    " currency price_set discount_bp ledger_key",
    "invoices": "invoice_id number kind status tenant_id period_start period_end issued_at due_at"
    " corrects reason buyer currency subtotal tax total amount_due line line_kind model component"
    " line_tier price_set discount_bp late text quantity price exact line_amount tax_code tax_ppm",
}


@pytest.fixture
def shop() -> Shop:
    """A tenant with an invoiced month: usage with a revision downwards, and a grant."""
    make_partitions(OCTOBER, months=3)
    with_seller()
    made = postpaid_shop()
    events = [event_at(made, OCTOBER + n * DAY, usage=tokens(1_001, 7)) for n in range(5)]
    post_events(events)
    known_better = {"rank": 4, "status": STATUS_OF_RANK[4], "usage": tokens(900, 7)}
    post_events([dataclasses.replace(events[0], **known_better)])  # type: ignore[arg-type]
    grant_credit(
        tenant=made.number, amount=5, idempotency_key="g", reason="=HYPERLINK(1)", actor="tests"
    )
    close_months(NOVEMBER + CLOSED)
    finalize_all(NOVEMBER + CLOSED)
    return made


@pytest.fixture
def other(shop: Shop) -> Shop:
    """Another tenant with a month like that."""
    made = postpaid_shop(name="Other")
    post_events([event_at(made, OCTOBER + n * DAY, usage=tokens(77)) for n in range(3)])
    close_months(NOVEMBER + CLOSED)
    finalize_all(NOVEMBER + CLOSED)
    return made


def of_tenant(shop: Shop) -> APIClient:
    return management_client(shop.tenant)


def operator() -> APIClient:
    return signed_in(make_user(is_staff=True))


def both(client: Any, path: str, **query: str) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
    """The same table in both forms, which must say the same."""
    text = csv_rows(fetch(client, path, format="csv", **query))
    typed = parquet_rows(fetch(client, path, format="parquet", **query))
    assert [[*row] for row in text[:1]] == [[*row] for row in typed[:1]]
    assert len(text) == len(typed)
    return text, typed


@pytest.mark.parametrize("name", TABLES)
def test_columns_are_those_that_programs_rely_on(name: str) -> None:
    columns = EXPORTS[name].columns

    assert [column.name for column in columns] == GOLDEN[name].split()
    page = (ROOT / "docs" / "api.md").read_text()
    documented = re.search(rf"^\| `{name}` \|.*$", page, re.MULTILINE)
    assert documented is not None
    for kind in (Kind.MONEY, Kind.TIME):
        assert kind.value in page
    named = re.findall(r"`([a-z0-9_]+)`", documented[0])
    assert named[1:] == GOLDEN[name].split()


def test_the_ledger_in_a_file_sums_to_the_ledgers_accounts(shop: Shop, other: Shop) -> None:
    text, typed = both(of_tenant(shop), "/api/v1/exports/ledger", **ALWAYS)

    sums: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for row, same in zip(text, typed, strict=True):
        assert Decimal(row["amount"]) == same["amount"]
        sign = 1 if row["side"] == "debit" else -1
        sums[row["account"], row["account_ref"]] += sign * same["amount"]
    with platform_scope("tests"):
        accounts = LedgerAccount.objects.filter(tenant=shop.tenant)
        for account in accounts:
            nanos = account.debits - account.credits
            assert sums[account.kind, account.ref] == Decimal(nanos).scaleb(-9)
        entries = LedgerEntry.objects.filter(tenant=shop.tenant)
        assert len(text) == entries.count()
    assert {row["tenant_id"] for row in text} == {shop.tenant.public_id}


def test_everybodys_ledger_sums_to_zero(shop: Shop, other: Shop) -> None:
    text, _typed = both(operator(), "/api/v1/operator/exports/ledger", **ALWAYS)

    debited, credited = (
        sum(Decimal(row["amount"]) for row in text if row["side"] == side)
        for side in ("debit", "credit")
    )
    with platform_scope("tests"):
        whole = LedgerEntry.objects.filter(side=DEBIT).aggregate(nano=Sum("amount"))["nano"]
        assert len(text) == LedgerEntry.objects.count()
    assert debited == credited == Decimal(whole).scaleb(-9)
    assert {row["tenant_id"] for row in text} == {"", shop.tenant.public_id, other.tenant.public_id}


def test_usage_in_a_file_is_what_was_charged_and_leads_to_the_ledger(
    shop: Shop, other: Shop
) -> None:
    client = of_tenant(shop)
    text, typed = both(client, "/api/v1/exports/usage", **SPAN)

    with platform_scope("tests"):
        rows = UsageEvent.objects.filter(tenant_id=shop.number)
        sums = rows.aggregate(nano=Sum("amount_nano"), tokens=Sum("input_tokens"))
    assert len(text) == 6
    assert sum(row["amount"] for row in typed) == Decimal(sums["nano"]).scaleb(-9)
    assert sum(int(row["input_tokens"]) for row in text) == sums["tokens"]
    assert any(row["amount"].startswith("-") for row in text)
    parts = [name for name in GOLDEN["usage"].split() if name.endswith("_amount")]
    for row in typed:
        assert sum(row[name] for name in parts) == row["amount"]
    assert [(row["request_id"], row["revision"]) for row in typed] == sorted(
        (row["request_id"], row["revision"]) for row in typed
    )
    assert {row["api_key_id"] for row in text} == {shop.key.public_id}
    ledger = csv_rows(fetch(client, "/api/v1/exports/ledger", **ALWAYS))
    by_key: dict[str, Decimal] = defaultdict(Decimal)
    for row in ledger:
        if row["account"] == "revenue" and row["kind"] == "usage":
            sign = 1 if row["side"] == "credit" else -1
            by_key[row["key"]] += sign * Decimal(row["amount"])
    charged: dict[str, Decimal] = defaultdict(Decimal)
    for row in text:
        charged[row["ledger_key"]] += Decimal(row["amount"])
    assert charged == by_key


def test_invoices_in_a_file_add_up_line_by_line(shop: Shop, other: Shop) -> None:
    text, typed = both(of_tenant(shop), "/api/v1/exports/invoices", **ALWAYS)

    assert {row["number"] for row in text} == {"INV-2026-00001"}
    assert sum(row["line_amount"] for row in typed) == typed[0]["subtotal"]
    assert typed[0]["subtotal"] + typed[0]["tax"] == typed[0]["total"]
    assert [row["line"] for row in typed] == list(range(1, len(typed) + 1))
    usage = parquet_rows(fetch(of_tenant(shop), "/api/v1/exports/usage", format="parquet", **SPAN))
    assert sum(row["exact"] for row in typed) == sum(row["amount"] for row in usage)
    assert text[0]["period_start"] == "2026-10-01T00:00:00Z"
    everybody = csv_rows(fetch(operator(), "/api/v1/operator/exports/invoices", **ALWAYS))
    assert {row["tenant_id"] for row in everybody} == {
        shop.tenant.public_id,
        other.tenant.public_id,
    }
    one = fetch(
        operator(), "/api/v1/operator/exports/invoices", tenant=other.tenant.public_id, **ALWAYS
    )
    assert {row["tenant_id"] for row in csv_rows(one)} == {other.tenant.public_id}


def test_chunks_lose_and_double_nothing(
    shop: Shop, other: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, base = operator(), "/api/v1/operator/exports"
    whole = {name: fetch(client, f"{base}/{name}", format="csv", **ALWAYS) for name in TABLES}
    for size in ("POSTINGS_AT_ONCE", "EVENTS_AT_ONCE", "DOCUMENTS_AT_ONCE"):
        monkeypatch.setattr(exports, size, 1)

    for name in TABLES:
        assert fetch(client, f"{base}/{name}", format="csv", **ALWAYS) == whole[name]
        parquet = fetch(client, f"{base}/{name}", format="parquet", **ALWAYS)
        assert len(parquet_rows(parquet)) == len(csv_rows(whole[name]))
        assert pq.ParquetFile(io.BytesIO(parquet)).num_row_groups > 1


def test_a_span_without_rows_is_a_file_with_columns() -> None:
    client, base = operator(), "/api/v1/operator/exports"
    span = {"starting_at": "2026-01-01T00:00:00Z", "ending_at": "2026-01-02T00:00:00Z"}

    for name in TABLES:
        assert csv_rows(fetch(client, f"{base}/{name}", **span)) == []
        data = fetch(client, f"{base}/{name}", format="parquet", **span)
        assert pq.read_schema(io.BytesIO(data)).names == GOLDEN[name].split()


def test_a_span_takes_its_start_and_leaves_its_end(shop: Shop) -> None:
    span = {"starting_at": "2026-10-02T00:00:00Z", "ending_at": "2026-10-04T00:00:00Z"}

    rows = csv_rows(fetch(of_tenant(shop), "/api/v1/exports/usage", **span))

    assert [row["started_at"][:10] for row in rows] == ["2026-10-02", "2026-10-03"]


def test_text_that_looks_like_a_formula_stays_text(shop: Shop) -> None:
    text, typed = both(of_tenant(shop), "/api/v1/exports/ledger", **ALWAYS)

    (row,) = (row for row in text if row["kind"] == "grant")
    (same,) = (row for row in typed if row["kind"] == "grant")
    assert (row["reason"], same["reason"]) == ("'=HYPERLINK(1)", "=HYPERLINK(1)")
    for start in ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"):
        assert spreadsheet_cell(f"{start}1") == f"'{start}1"
    assert spreadsheet_cell("a=1") == "a=1"


def test_a_query_that_cannot_be_answered_is_refused() -> None:
    client = operator()
    wrong: list[tuple[str, dict[str, str]]] = [
        ("starting_at", {}),
        ("starting_at", {"starting_at": "soon"}),
        ("format", {**SPAN, "format": "xlsx"}),
        ("ending_at", {**SPAN, "ending_at": SPAN["starting_at"]}),
        ("ending_at", {**SPAN, "starting_at": "2025-10-01T00:00:00Z"}),
    ]

    for field, query in wrong:
        answer = client.get("/api/v1/operator/exports/ledger", query)
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["field"] == field


def nothing(_after: Any) -> Chunk:
    """A table without rows."""
    return Chunk(rows=[], next_place=None)


def test_only_so_many_files_are_read_at_once() -> None:
    client, path = operator(), "/api/v1/operator/exports/ledger"
    columns = EXPORTS["ledger"].columns
    streams = [TableStream(columns, nothing, CsvEncoder()) for _ in range(STREAMS_MAX)]

    refused = client.get(path, SPAN)
    assert (refused.status_code, refused.json()["code"]) == (429, "limit_reached")
    # One whose reader has gone makes room for one more, and so does one that was read.
    streams[0].close()
    for _ in range(2):
        assert fetch(client, path, **SPAN)
    streams[0].close()
    again = TableStream(columns, nothing, CsvEncoder())
    assert client.get(path, SPAN).status_code == 429
    for stream in (again, *streams):
        stream.close()


def test_who_may_take_what(shop: Shop) -> None:
    def status(client: Any, path: str) -> int:
        answer = client.get(f"/api/v1/{path}", SPAN)
        assert not answer.streaming or joined(answer)
        return int(answer.status_code)

    scopes = {"ledger": Power.BILLING_READ, "usage": Power.REQUESTS_READ}
    for name, power in {**scopes, "invoices": Power.BILLING_READ}.items():
        assert status(management_client(shop.tenant, power), f"exports/{name}") == 200
        lacking = management_client(shop.tenant, *(set(Power) - {power}))
        assert status(lacking, f"exports/{name}") == 403
        assert status(APIClient(), f"exports/{name}") == 401
        assert status(of_tenant(shop), f"operator/exports/{name}") == 401
        assert status(signed_in(make_member(shop.tenant).user), f"operator/exports/{name}") == 403
    assert status(operator(), "operator/exports/secrets") == 400
    assert (
        operator().get("/api/v1/operator/exports/usage", {**SPAN, "tenant": "x"}).status_code == 404
    )


def test_taking_a_file_is_written_down(shop: Shop) -> None:
    fetch(of_tenant(shop), "/api/v1/exports/ledger", format="parquet", **SPAN)
    fetch(operator(), "/api/v1/operator/exports/usage", **SPAN)

    with platform_scope("tests"):
        rows = AuditEvent.objects.filter(action="data.exported").order_by("pk")
        found = [(row.tenant_id, row.target, row.after["format"], row.address) for row in rows]
    assert found == [
        (shop.number, "ledger", "parquet", "127.0.0.1"),
        (None, "usage", "csv", "127.0.0.1"),
    ]


def links_of(page: str) -> list[str]:
    """The addresses of files on a page."""
    found = re.findall(r'href="([^"]*/exports/[^"]*)"', page)
    return [address.replace("&amp;", "&") for address in found]


def test_pages_lead_to_the_files(shop: Shop) -> None:
    member = client_for(make_member(shop.tenant, Role.OWNER))
    staff = client_for(make_member(shop.tenant, Role.OWNER, make_user(is_staff=True)))
    for client, path, tables in (
        (member, "/console/billing", {"ledger", "invoices"}),
        (member, "/console/logs", {"usage"}),
        (member, "/console/usage?period=90d", {"usage"}),
        (staff, f"/operator/ledger?tenant={shop.tenant.public_id}", {"ledger"}),
        (staff, "/operator/invoices", {"invoices"}),
        (staff, "/operator/logs", {"usage"}),
    ):
        links = links_of(client.get(path).content.decode())
        assert {re.findall(r"/exports/(\w+)", link)[0] for link in links} == tables, path
        assert len(links) == 6 * len(tables)
        for link in links[-2:]:
            assert fetch(client, link)
    refused = member.get("/console/exports/ledger", {"starting_at": "soon"})
    assert refused.status_code == 400
    assert (
        client_for(make_member(shop.tenant, Role.VIEWER))
        .get("/console/exports/usage", SPAN)
        .status_code
        == 403
    )


def test_links_name_three_spans_that_end_where_the_next_begins() -> None:
    links = operator_export_links("usage", tenant="ten_x")

    assert len(links) == 3
    assert all("tenant=ten_x" in link.csv and "format=csv" in link.csv for link in links)
    now = clock.utc_now()
    assert f"starting_at={now:%Y-%m}-01T00%3A00%3A00Z" in links[0].parquet
    assert f"ending_at={now:%Y-%m}-01T00%3A00%3A00Z" in links[1].parquet
