"""Operators over HTTP: drafts go out, are corrected and paid; prices are tried and put right."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from rest_framework.test import APIClient

from accounts.models import Role
from billing.models.upstreams import Upstream
from billing.services.costs import ensure_book
from tests.accounts.factories import make_member, make_user, signed_in
from tests.billing.invoice_world import (
    CLOSED,
    NOVEMBER,
    OCTOBER,
    close_months,
    differences,
    documents,
    event_at,
    make_partitions,
    post_events,
    postpaid_shop,
    tokens,
)
from tests.billing.usage_world import MODEL, Shop, make_price_set
from turnpike.contracts.usage import Attempt
from turnpike.control.scope import platform_scope

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("months")]
DAY = timedelta(days=1)
SPAN = {"starting_at": "2026-10-01T00:00:00Z", "ending_at": "2026-11-01T00:00:00Z"}
INPUT = {"model": MODEL, "component": "input"}


@pytest.fixture
def months(db: None) -> None:
    make_partitions(OCTOBER, months=3)


@pytest.fixture
def operator() -> APIClient:
    return signed_in(make_user(is_staff=True))


@pytest.fixture
def shop() -> Shop:
    shop = postpaid_shop()
    post_events([event_at(shop, OCTOBER + n * DAY, usage=tokens(1_000_000)) for n in range(3)])
    return shop


def send(api: APIClient, path: str, body: Any = None, *, key: str | None = None) -> Any:
    """A call under a key of its own, under this one, or (empty) under none."""
    key = str(uuid4()) if key is None else key
    headers = {"idempotency-key": key} if key else {}
    return api.post(f"/api/v1/operator/{path}", body or {}, "json", headers=headers)


def set_up(api: APIClient) -> None:
    vat = {"title": "VAT", "rate_ppm": 190_000}
    assert api.put("/api/v1/operator/taxes/vat", vat, "json").status_code == 200
    seller = {"name": "Turnpike Ltd", "invoice_prefix": "T-", "tax": "vat"}
    assert api.put("/api/v1/operator/sellers/main", seller, "json").json()["is_default"]


def test_a_draft_goes_out_is_credited_and_paid(operator: APIClient, shop: Shop) -> None:
    close_months(NOVEMBER + CLOSED)
    where = f"invoices/{documents(shop)[0].public_id}"
    assert send(operator, f"{where}/finalize").status_code == 409
    set_up(operator)

    final = send(operator, f"{where}/finalize").json()
    credited = send(
        operator, f"{where}/credit", {"amount": "1.000000000", "reason": "Goodwill"}, key="a"
    )
    again = send(
        operator, f"{where}/credit", {"amount": "1.000000000", "reason": "Goodwill"}, key="a"
    )
    paid = send(operator, f"{where}/pay", {"amount": "9.520000000"}, key="b")

    assert (final["status"], final["total"]) == ("open", "10.710000000")
    assert final["number"].startswith("T-")
    assert (credited.status_code, credited.json()["total"]) == (201, "1.190000000")
    assert again.json()["number"] == credited.json()["number"]
    assert (paid.json()["status"], paid.json()["amount_due"]) == ("paid", "0.000000000")
    listed = operator.get("/api/v1/operator/invoices?kind=credit_note").json()["data"]
    assert [row["number"] for row in listed] == [credited.json()["number"]]
    assert differences() == {}


def test_a_void_draws_its_month_up_anew(operator: APIClient, shop: Shop) -> None:
    set_up(operator)
    close_months(NOVEMBER + CLOSED)
    where = f"invoices/{documents(shop)[0].public_id}"
    send(operator, f"{where}/finalize")

    voided = send(operator, f"{where}/void", {"reason": "Address", "redraft": True})

    assert voided.json()["status"] == "void"
    assert [row.status for row in documents(shop)] == ["void", "draft"]
    assert send(operator, f"{where}/write_off", {"reason": "x"}).status_code == 409


def test_nobody_but_staff_comes_in(shop: Shop) -> None:
    owner = signed_in(make_member(shop.tenant, Role.OWNER).user)

    for path in ("invoices", "taxes", "sellers", "margins"):
        assert owner.get(f"/api/v1/operator/{path}").status_code in (401, 403)
    for path in ("invoices/run", "rehearsals", "corrections"):
        assert send(owner, path).status_code in (401, 403)


def test_a_rehearsal_says_what_a_change_would_have_done(operator: APIClient, shop: Shop) -> None:
    answer = send(
        operator, "rehearsals", {**SPAN, "prices": [{**INPUT, "price": "4.500000000"}]}
    ).json()["data"]

    assert [(row["name"], row["before"], row["after"]) for row in answer] == [
        ("Acme", "9.000000000", "13.500000000")
    ]
    assert answer[0]["models"] == [
        {"model": MODEL, "before": "9.000000000", "after": "13.500000000"}
    ]
    discounted = send(operator, "rehearsals", {**SPAN, "discount_bp": 1_000}).json()["data"]
    assert discounted[0]["difference"] == "-0.900000000"
    assert differences() == {}


def test_a_rehearsed_tier_counts_what_it_would_refuse(operator: APIClient) -> None:
    from billing.services.tiers import ensure_tiers

    ensure_tiers()
    shop = postpaid_shop(name="Busy")
    # Basic has 50 requests a minute and a full bucket of as many.
    post_events([event_at(shop, OCTOBER + timedelta(milliseconds=10 * n)) for n in range(60)])
    body = {**SPAN, "tier": "basic", "tenant": shop.tenant.public_id}

    (row,) = send(operator, "rehearsals", body).json()["data"]

    # Ten at once is what Basic runs; every request here takes one and a half seconds.
    assert (row["requests"], row["refused"]) == (60, 50)
    assert send(operator, "rehearsals", {**SPAN, "tier": "none"}).status_code == 404


def test_prices_are_put_right_by_api_and_command(
    operator: APIClient, shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(operator)
    rates = ("input", "output", "cache_write_5m", "cache_write_1h", "cache_read")
    prices = [{"model": MODEL, "component": name, "price": "2.000000000"} for name in rates]
    body = {**SPAN, "price_set": shop.price_set, "prices": prices, "reason": "Wrong"}

    first = send(operator, "corrections", body, key="october")
    assert (first.status_code, first.json()["amounts"]) == (201, {"USD": "-3.000000000"})
    assert send(operator, "corrections", body, key="october").json() == first.json()

    path = tmp_path / "prices.json"
    path.write_text(json.dumps([{**item, "price": "1.000000000"} for item in prices]))
    options = {"since": OCTOBER, "until": NOVEMBER, "prices": path}
    call_command("rate_again", dry_run=True, json=True, **options)
    assert json.loads(capsys.readouterr().out)["data"][0]["after"] == "3.000000000"
    correct = {**options, "price_set": shop.price_set, "reason": "Again", "key": "k", "json": True}
    call_command("rate_again", **correct)
    call_command("rate_again", **correct)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["amounts"] == {"USD": "-3.000000000"}
    assert lines[1] == lines[0]
    with pytest.raises(CommandError):
        call_command("rate_again", **options)
    assert differences() == {}


def test_attempts_are_costed_from_their_upstreams_book(operator: APIClient, shop: Shop) -> None:
    with platform_scope("tests"):
        upstream = Upstream.objects.create(name="A", kind="anthropic", base_url="https://a.test")
        free = Upstream.objects.create(name="B", kind="anthropic", base_url="https://b.test")
        book = ensure_book(name="costs", currency="USD")
        cost_set = make_price_set(rates={"input": 1_000_000_000, "output": 1})
        from billing.models.catalog import PriceSet

        name = PriceSet.objects.select_related("book").get(pk=cost_set).book.name
    assert book.currency == "USD"
    where = f"/api/v1/operator/upstreams/{upstream.pk}/cost_book"
    chosen = operator.put(where, {"book": name, "reason": "contract"}, "json")
    assert chosen.status_code == 200
    missing = operator.put(where, {"book": "none", "reason": "contract"}, "json")
    assert missing.status_code == 404
    usage = tokens(2_000_000)
    post_events(
        [
            event_at(
                shop,
                OCTOBER + 5 * DAY + timedelta(minutes=upstream_id),
                usage=usage,
                attempts=(Attempt(n=1, upstream=upstream_id, outcome="answered", usage=usage),),
            )
            for upstream_id in (int(upstream.pk), int(free.pk))
        ]
    )

    (row,) = operator.get(
        "/api/v1/operator/margins?starting_at=2026-10-05T00:00:00Z&ending_at=2026-10-07T00:00:00Z"
    ).json()["data"]

    assert (row["charged"], row["cost"]) == ("12.000000000", "2.000000000")
    assert (row["margin"], row["uncosted_attempts"]) == ("10.000000000", 1)


def test_wrong_settings_are_refused(operator: APIClient) -> None:
    for path, body in (
        ("taxes/vat", {"title": "VAT", "rate_ppm": 1_000_001}),
        ("taxes/VAT!", {"title": "VAT", "rate_ppm": 1}),
        ("sellers/main", {"name": ""}),
        ("sellers/main", {"name": "A", "invoice_prefix": "X", "credit_note_prefix": "X"}),
        ("sellers/main", {"name": "A", "country": "Germany"}),
        ("sellers/main", {"name": "A", "due_days": 9_999}),
    ):
        answer = operator.put(f"/api/v1/operator/{path}", body, "json")
        assert answer.status_code == 400, (path, body)
