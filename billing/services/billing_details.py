"""set_details, set_seller, set_tax_rate: who sells, who buys, and which tax is between them."""

import re
from collections.abc import Mapping
from typing import Any

from django.db import models

from accounts.models import Tenant
from accounts.services.audit import record_audit
from billing.models.invoices import RATE_PPM_MAX, BillingDetails, Seller, TaxRate
from turnpike.control.caller import Caller
from turnpike.control.scope import platform_scope
from turnpike.kernel.errors import Conflict, InvalidInput

OWN_FIELDS = frozenset(
    ("name", "address", "country", "tax_id", "email", "reference", "language"),
)
SELLER_FIELDS = frozenset(
    (
        "name",
        "address",
        "country",
        "tax_id",
        "email",
        "payment_details",
        "invoice_prefix",
        "credit_note_prefix",
        "due_days",
        "finalize_after_hours",
        "is_default",
    )
)
CODE = re.compile(r"[a-z0-9][a-z0-9-]{0,38}")
COUNTRY = re.compile(r"[A-Z]{2}|")
PREFIX = re.compile(r"[A-Za-z0-9/_-]{1,20}")
DUE_DAYS_MAX = 365


def set_details(*, tenant: int, changes: Mapping[str, str], actor: Caller | str) -> BillingDetails:
    """Change whom a tenant's next invoices are addressed to; what was sent stays as it was."""
    values = _checked(BillingDetails, changes, allowed=OWN_FIELDS)
    with platform_scope("billing.set_details"):
        row, _ = BillingDetails.objects.get_or_create(tenant_id=tenant)
        before = {name: getattr(row, name) for name in values}
        _set(row, values)
        row.save()
        _audit(tenant, "billing_details.changed", before, values, actor=actor)
    return row


def set_tenant_tax(
    *, tenant: int, tax: str = "", seller: str = "", actor: Caller | str, reason: str
) -> BillingDetails:
    """Which seller invoices a tenant, and with which tax; empty: the default seller, its tax."""
    with platform_scope("billing.set_tenant_tax"):
        row, _ = BillingDetails.objects.get_or_create(tenant_id=tenant)
        row.tax_rate = _named(TaxRate, tax)
        row.seller = _named(Seller, seller)
        row.save(update_fields=["tax_rate", "seller"])
        after = {"tax": tax, "seller": seller}
        _audit(tenant, "billing_tax.changed", {}, after, actor=actor, reason=reason)
    return row


def set_tax_rate(
    *, code: str, title: str, rate_ppm: int, note: str = "", actor: Caller | str
) -> TaxRate:
    """Make a tax, or change it for what is finalized from now on."""
    _check_code(code)
    if not 0 <= rate_ppm <= RATE_PPM_MAX:
        raise InvalidInput(
            f"A tax is 0 to {RATE_PPM_MAX} millionths, not {rate_ppm}.", field="rate_ppm"
        )
    values = {"title": title.strip(), "note": note.strip()}
    _check_lengths(TaxRate, values)
    if not values["title"]:
        raise InvalidInput("A tax has a title.", field="title")
    with platform_scope("billing.set_tax_rate"):
        row, _ = TaxRate.objects.update_or_create(
            code=code, defaults={**values, "rate_ppm": rate_ppm}
        )
        _audit(None, "tax_rate.set", {}, {"code": code, "rate_ppm": rate_ppm}, actor=actor)
    return row


def set_seller(
    *, code: str, changes: Mapping[str, Any], tax: str | None = None, actor: Caller | str
) -> Seller:
    """Make a seller, or change it for what is finalized from now on. The first is the default."""
    _check_code(code)
    values = _checked(Seller, changes, allowed=SELLER_FIELDS)
    with platform_scope("billing.set_seller"):
        row = Seller.objects.select_for_update().filter(code=code).first()
        if row is None:
            values.setdefault("is_default", not Seller.objects.exists())
            row = Seller(code=code)
        if values.get("is_default"):
            Seller.objects.exclude(code=code).update(is_default=False)
        if tax is not None:
            values["tax_rate"] = _named(TaxRate, tax)
        _set(row, values)
        if not row.name or row.invoice_prefix == row.credit_note_prefix:
            raise InvalidInput("A seller has a name, and two different prefixes.", field="name")
        row.save()
        shown = {name: str(value) for name, value in values.items()}
        _audit(None, "seller.set", {}, {"code": code, **shown}, actor=actor)
    return row


def find_default_seller() -> Seller | None:
    """The seller of tenants that have none of their own."""
    return Seller.objects.select_related("tax_rate").filter(is_default=True).first()


def details_of(tenant: int) -> BillingDetails:
    """A tenant's details; empty ones that are not stored where it gave none."""
    rows = BillingDetails.objects.select_related("seller__tax_rate", "tax_rate")
    return rows.filter(tenant_id=tenant).first() or BillingDetails(tenant_id=tenant)


def _set(row: models.Model, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        setattr(row, name, value)


def _checked(
    model: type[models.Model], changes: Mapping[str, Any], *, allowed: frozenset[str]
) -> dict[str, Any]:
    unknown = sorted(set(changes) - allowed)
    if unknown:
        raise InvalidInput(f"{unknown[0]} cannot be changed.", field=unknown[0])
    values: dict[str, Any] = {
        name: value.replace("\r\n", "\n").strip() if isinstance(value, str) else value
        for name, value in changes.items()
    }
    if "country" in values and not COUNTRY.fullmatch(values["country"]):
        raise InvalidInput("country is a code of two letters, or empty.", field="country")
    for name in ("invoice_prefix", "credit_note_prefix"):
        if name in values and not PREFIX.fullmatch(values[name]):
            raise InvalidInput(f"{name} has 1 to 20 letters, digits, -, _ or /.", field=name)
    if not 0 <= values.get("due_days", 0) <= DUE_DAYS_MAX:
        raise InvalidInput(f"due_days is 0 to {DUE_DAYS_MAX}.", field="due_days")
    _check_lengths(model, values)
    return values


def _check_lengths(model: type[models.Model], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        field = model._meta.get_field(name)
        longest = getattr(field, "max_length", None)
        if isinstance(value, str) and longest is not None and len(value) > longest:
            raise InvalidInput(f"{name} has at most {longest} characters.", field=name)
        choices = [choice for choice, _ in getattr(field, "choices", None) or ()]
        if choices and value not in choices:
            raise InvalidInput(f"{name} is one of {', '.join(choices)}.", field=name)


def _check_code(code: str) -> None:
    if not CODE.fullmatch(code):
        raise InvalidInput("A code has 1 to 39 small letters, digits and dashes.", field="code")


def _named(model: type[Any], code: str) -> Any:
    if not code:
        return None
    row = model.objects.filter(code=code).first()
    if row is None:
        raise Conflict(f"There is no {model._meta.verbose_name} {code!r}.")
    return row


def _audit(
    tenant: int | None,
    action: str,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    *,
    actor: Caller | str,
    reason: str = "",
) -> None:
    target = "platform" if tenant is None else Tenant.objects.get(pk=tenant).public_id
    record_audit(
        actor=actor,
        tenant=tenant,
        action=action,
        target=target,
        before=before,
        after=after,
        reason=reason,
    )
