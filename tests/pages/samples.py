"""What pages need to have something to show: a month of usage, a document, mail, and the rest.

Run by the platform's own interpreter, with the platform running: it posts and sends by itself.
"""

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings

from accounts.models import Role, Tenant, Workspace
from accounts.services.members import invite_member
from billing.models.catalog import DEFAULT_BOOK, PriceSet
from billing.models.usage import UsageEvent
from billing.services.announcements import Words, announce
from billing.services.closing import close_due_periods, draft_documents
from billing.services.credit_notes import credit_invoice
from billing.services.differences import keep_differences
from billing.services.findings import Difference, finding_of
from billing.services.letters import Letter, write_letters
from billing.services.payments.orders import record_transfer
from billing.services.payments.refunds import refund_payment
from billing.services.redemption import CodeTerms, create_codes, redeem_code, withdraw_code
from billing.services.wallet import set_mode
from tests.billing.invoice_world import ACTOR, finalize_all, with_seller
from tests.billing.usage_world import Shop, append, make_event
from tests.browser import history
from tests.support.waiting import wait_until
from turnpike.control.caller import SYSTEM
from turnpike.control.mail_backend import list_messages
from turnpike.control.redis import redis_client
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids
from turnpike.kernel.money import NANOS_PER_UNIT

SOMEBODY = "newcomer@example.com"
CENT = NANOS_PER_UNIT // 100
WORDS = {
    "en": Words(title="Maintenance", text="Requests are answered meanwhile."),
    "ru": Words(title="Обслуживание", text="Запросы тем временем принимаются."),
    "zh-hans": Words(title="维护", text="期间请求照常处理。"),
}


def make(tenant_id: str) -> None:
    """Everything, once."""
    with platform_scope("tests"):
        tenant = Tenant.objects.get(uuid=Tenant.parse_public_id(tenant_id))
        invite_member(caller=SYSTEM, tenant=tenant, email=SOMEBODY, role=Role.DEVELOPER)
        _announce_and_fail()
    set_mode(tenant=tenant.pk, mode="postpaid", actor=ACTOR)
    history.write(tenant_id)
    oldest = _write_request_of_last_month(tenant)
    wait_until(lambda: _is_posted(oldest))
    wait_until(lambda: bool(list_messages(Path(settings.EMAIL_FILE_PATH), limit=1)))
    _invoice(tenant)
    _move_money(tenant)


def _invoice(tenant: Tenant) -> None:
    """Close what is over as that of somebody who pays by invoice, and send the invoice out."""
    now = clock.utc_now()
    with_seller()
    close_due_periods(at=now)
    draft_documents(at=now)
    set_mode(tenant=tenant.pk, mode="prepaid", actor=ACTOR)
    credit_invoice(
        invoice=next(row.pk for row in finalize_all(now) if row.subtotal_nano > CENT),
        net=CENT,
        reason="An hour without answers.",
        idempotency_key="pages",
        at=now,
        actor=SYSTEM,
    )


def _move_money(tenant: Tenant) -> None:
    """A transfer of which a part went back, and codes in each of their states."""
    now = clock.utc_now()
    paid = record_transfer(
        tenant=tenant.pk,
        amount=100 * NANOS_PER_UNIT,
        reference="SEPA 2026-11-0042",
        reason="Seen on the account.",
        key="pages",
        caller=SYSTEM,
        at=now,
    )
    part = 25 * NANOS_PER_UNIT
    refund_payment(payment=paid.pk, amount=part, key="1", reason="Paid twice.", caller=SYSTEM)
    terms = CodeTerms(amount=10 * NANOS_PER_UNIT, ends_at=now + timedelta(days=30), credit_days=90)
    made = create_codes(
        count=4, terms=terms, batch=ids.uuid7(), reason="A conference in May", caller=SYSTEM
    )
    redeem_code(tenant=tenant.pk, words=made[0].words, caller=SYSTEM, at=now)
    withdraw_code(code=made[1].row, reason="Leaked.", caller=SYSTEM, at=now)


def _write_request_of_last_month(tenant: Tenant) -> UUID:
    """A request of a month that has ended, so that there is a document."""
    started = clock.utc_now().replace(day=1) - timedelta(days=1)
    rid = ids.uuid7(at_ms=int(started.timestamp() * 1_000))
    with platform_scope("tests"):
        price_set = PriceSet.objects.filter(book__name=DEFAULT_BOOK).order_by("-pk")[0]
        workspace = Workspace.objects.get(tenant=tenant, is_default=True)
        key = workspace.api_keys.order_by("-pk")[0]
    shop = Shop(tenant=tenant, workspace=workspace, key=key, price_set=price_set.pk)
    model = history.MODELS[0][0]
    usage = {"input_tokens": 20_000, "output_tokens": 900}
    names: dict[str, Any] = {"model": model, "upstream_model": model, "requested_model": model}
    append(redis_client(), make_event(shop, rid=rid, usage=usage, **names))
    return rid


def _is_posted(rid: UUID) -> bool:
    with platform_scope("tests"):
        return UsageEvent.objects.filter(request_id=rid).exists()


def _announce_and_fail() -> None:
    starts = clock.utc_now() + timedelta(days=2)
    announce(
        caller=SYSTEM,
        kind="maintenance",
        severity="info",
        words=WORDS,
        starts_at=starts,
        ends_at=starts + timedelta(hours=1),
    )
    letter = Letter(
        stream="usage",
        stream_id="1-1",
        body=b"no event",
        fingerprint=b"f" * 32,
        request=None,
        error="The event cannot be read: it is no JSON.",
    )
    write_letters([letter])
    row = Difference(
        cause=("there", "2026-11-01"),
        evidence=(("upstream", "there"), ("ours", "8"), ("reported", "28")),
        text="there",
    )
    keep_differences([finding_of("upstreams", [row])], at=clock.utc_now())
