"""What operators can do to a tenant: with a reason, audited, in force from the next request."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.access import access_any_tenant
from accounts.console.operators import OperatorPage, ReasonForm
from accounts.models import Tenant
from accounts.services import tenants
from billing.models.tiers import Subscription
from billing.services import tiers, wallet
from billing.services.payments.orders import record_transfer
from billing.snapshots import terms_of
from turnpike.control.caller import Caller
from turnpike.kernel import clock
from turnpike.kernel.errors import InvalidInput
from turnpike.web.operators.tenant_forms import (
    CloseForm,
    DisconnectForm,
    GrantForm,
    LimitsForm,
    PaymentForm,
    PricesForm,
    TierForm,
    TransferForm,
)

Apply = Callable[[Caller, Tenant, Any], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that can be done: how it looks, what it asks, what it does, where it is shown."""

    form: type[ReasonForm]
    apply: Apply
    title: Any
    note: Any
    icon: str
    done: Any
    tab: str
    tone: str = ""


def suspend(caller: Caller, tenant: Tenant, form: ReasonForm) -> None:
    """Refuse its requests."""
    tenants.suspend_tenant(caller=caller, tenant=tenant, reason=_reason(form))


def resume(caller: Caller, tenant: Tenant, form: ReasonForm) -> None:
    """Serve it again."""
    tenants.resume_tenant(caller=caller, tenant=tenant, reason=_reason(form))


def close(caller: Caller, tenant: Tenant, form: CloseForm) -> None:
    """End it for good."""
    if form.cleaned_data["typed"].strip() != tenant.name:
        raise InvalidInput(_("Type the tenant's name to close it."), field="typed")
    tenants.close_tenant(caller=caller, tenant=tenant, reason=_reason(form))


def grant(caller: Caller, tenant: Tenant, form: GrantForm) -> None:
    """Give it credit, once however often the form is sent."""
    day = form.cleaned_data["expires_on"]
    ends_at = None if day is None else datetime.combine(day, time(tzinfo=UTC)) + timedelta(days=1)
    if not form.cleaned_data["amount_nano"]:
        raise InvalidInput(_("An amount above zero is needed."), field="amount_nano")
    wallet.grant_credit(
        tenant=tenant.pk,
        amount=form.cleaned_data["amount_nano"],
        idempotency_key=f"operator:{tenant.pk}:{form.cleaned_data['once']}",
        reason=_reason(form),
        actor=caller,
        expires_at=ends_at,
    )


def transfer(caller: Caller, tenant: Tenant, form: TransferForm) -> None:
    """Credit a bank transfer, once however often the form is sent."""
    record_transfer(
        tenant=tenant.pk,
        amount=form.cleaned_data["amount_nano"] or 0,
        reference=form.cleaned_data["reference"],
        reason=_reason(form),
        key=form.cleaned_data["once"],
        caller=caller,
        at=clock.utc_now(),
    )


def change_tier(caller: Caller, tenant: Tenant, form: TierForm) -> None:
    """Put it on another tier."""
    tiers.set_tier(
        tenant=tenant.pk,
        tier=form.cleaned_data["tier"],
        actor=caller,
        reason=_reason(form),
    )


def override_limits(caller: Caller, tenant: Tenant, form: LimitsForm) -> None:
    """Give it limits of its own; those of groups of models stay."""
    tiers.set_overrides(
        tenant=tenant.pk,
        limits=form.limits,
        group_limits=terms_of([tenant.pk])[tenant.pk].group_overrides,
        actor=caller,
        reason=_reason(form),
    )


def change_prices(caller: Caller, tenant: Tenant, form: PricesForm) -> None:
    """Give it another book or discount."""
    tiers.set_prices(
        tenant=tenant.pk,
        book=form.cleaned_data["book"],
        discount_bp=form.discount_bp,
        actor=caller,
        reason=_reason(form),
    )


def change_payment(caller: Caller, tenant: Tenant, form: PaymentForm) -> None:
    """Prepaid or by invoice, and the credit line."""
    limit = form.cleaned_data["credit_limit_nano"] or 0
    mode, reason = form.cleaned_data["mode"], _reason(form)
    wallet.set_mode(tenant=tenant.pk, mode=mode, actor=caller, reason=reason)
    wallet.set_credit_line(tenant=tenant.pk, limit=limit, actor=caller, reason=reason)


def change_disconnect(caller: Caller, tenant: Tenant, form: DisconnectForm) -> None:
    """What happens to a stream that nobody reads."""
    tiers.set_disconnect(
        tenant=tenant.pk,
        on_disconnect=form.cleaned_data["on_disconnect"],
        drain_seconds=form.cleaned_data["drain_seconds"],
        actor=caller,
        reason=_reason(form),
    )


CHANGES: Mapping[str, Change] = {
    "suspend": Change(
        form=ReasonForm,
        apply=suspend,
        title=gettext_lazy("Suspend"),
        note=gettext_lazy("Its requests are refused with 403 from the next one on"),
        icon="ban",
        done=gettext_lazy("The tenant is suspended. Its next request is refused."),
        tab="overview",
        tone="danger",
    ),
    "restore": Change(
        form=ReasonForm,
        apply=resume,
        title=gettext_lazy("Restore"),
        note=gettext_lazy("Its requests are served again from the next one on"),
        icon="play",
        done=gettext_lazy("The tenant is served again."),
        tab="overview",
    ),
    "grant": Change(
        form=GrantForm,
        apply=grant,
        title=gettext_lazy("Grant credit"),
        note=gettext_lazy("Used before what was paid; booked as an expense of yours"),
        icon="coins",
        done=gettext_lazy("The credit was granted."),
        tab="billing",
    ),
    "transfer": Change(
        form=TransferForm,
        apply=transfer,
        title=gettext_lazy("Record a bank transfer"),
        note=gettext_lazy("Money that you saw on your account; it can be spent at once"),
        icon="receipt-text",
        done=gettext_lazy("The transfer was credited."),
        tab="billing",
    ),
    "payment": Change(
        form=PaymentForm,
        apply=change_payment,
        title=gettext_lazy("Change how it pays"),
        note=gettext_lazy("Prepaid or by invoice, and the credit line"),
        icon="credit-card",
        done=gettext_lazy("The terms of payment hold from the next request on."),
        tab="billing",
    ),
    "prices": Change(
        form=PricesForm,
        apply=change_prices,
        title=gettext_lazy("Change its prices"),
        note=gettext_lazy("A price book and a discount; requests that run keep theirs"),
        icon="tag",
        done=gettext_lazy("The prices hold from the next request on."),
        tab="billing",
    ),
    "tier": Change(
        form=TierForm,
        apply=change_tier,
        title=gettext_lazy("Change the tier"),
        note=gettext_lazy("Limits of the tier hold from the next request on"),
        icon="gauge",
        done=gettext_lazy("The tier was changed. It holds from the next request on."),
        tab="limits",
    ),
    "limits": Change(
        form=LimitsForm,
        apply=override_limits,
        title=gettext_lazy("Override limits"),
        note=gettext_lazy("Stand above those of the tier; an empty field is the tier's"),
        icon="pencil",
        done=gettext_lazy("The limits hold from the next request on."),
        tab="limits",
    ),
    "disconnect": Change(
        form=DisconnectForm,
        apply=change_disconnect,
        title=gettext_lazy("When clients leave"),
        note=gettext_lazy("Stop the stream at once, or read it on and charge it"),
        icon="log-out",
        done=gettext_lazy("It holds for streams that begin from now on."),
        tab="limits",
    ),
    "close": Change(
        form=CloseForm,
        apply=close,
        title=gettext_lazy("Close for good"),
        note=gettext_lazy("Its keys are unknown from the next request on; its records stay"),
        icon="trash-2",
        done=gettext_lazy("The tenant is closed."),
        tab="overview",
        tone="danger",
    ),
}


class ChangeTenantPage(OperatorPage):
    """Doing one of these things."""

    def back(self) -> str:
        """The tab from which it was done."""
        change = CHANGES.get(self.kwargs["change"])
        tab = change.tab if change is not None else "overview"
        return tab_address(self.kwargs["tenant_id"], tab)

    def post(self, request: HttpRequest, tenant_id: str, change: str) -> HttpResponse:
        """Do it; it holds from the next request."""
        if change not in CHANGES:
            raise Http404
        tenant = access_any_tenant(self.caller, tenant_id)
        chosen = CHANGES[change]
        form = chosen.form(request.POST)
        if not form.is_valid():
            return self.refused(form)
        chosen.apply(self.caller, tenant, form)
        return self.done(chosen.done)


def tab_address(tenant_id: str, tab: str) -> str:
    """Where a tab of a tenant is."""
    if tab == "overview":
        return reverse("operator-tenant", args=[tenant_id])
    return reverse("operator-tenant-tab", args=[tenant_id, tab])


def find_subscription(tenant: int) -> Subscription | None:
    """A tenant's subscription with its tier and book."""
    rows = Subscription.objects.select_related("tier", "book")
    return rows.filter(tenant_id=tenant).first()


def _reason(form: ReasonForm) -> str:
    return str(form.cleaned_data["reason"])
