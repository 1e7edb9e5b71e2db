"""Webhooks: the endpoints, their secrets, what was sent, and sending it again."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

from django import forms
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.access import (
    access_deliveries,
    access_delivery,
    access_tenant,
    access_webhook,
    access_webhooks,
)
from accounts.console.pages import TenantPage
from accounts.models import NAME_LENGTH_MAX, URL_LENGTH_MAX, WebhookDelivery, WebhookEndpoint
from accounts.services import webhooks
from accounts.services.webhook_events import EVENT_TYPES
from accounts.services.webhooks import IssuedWebhook
from turnpike.control.caller import Power
from turnpike.control.forms import ConsoleForm
from turnpike.control.pages import parse_bigint
from turnpike.kernel import clock
from turnpike.kernel.errors import InvalidInput

SHOWN = 30
OVERLAPS = (
    ("0", gettext_lazy("None: it stops at once")),
    ("3600", gettext_lazy("1 hour")),
    ("86400", gettext_lazy("24 hours")),
    ("604800", gettext_lazy("7 days")),
)
STATES = {
    WebhookDelivery.State.WAITING: (gettext_lazy("Waiting"), "info"),
    WebhookDelivery.State.DELIVERED: (gettext_lazy("Delivered"), "ok"),
    WebhookDelivery.State.FAILED: (gettext_lazy("Given up"), "danger"),
}
WHY_DISABLED = {
    "by_hand": gettext_lazy("Switched off"),
    "failing": gettext_lazy("Switched off: it took nothing for 5 days"),
    "gone": gettext_lazy("Switched off: it answered 410 Gone"),
}
ERRORS = {
    "url": gettext_lazy("The address is not one that we send to"),
    "name": gettext_lazy("The name could not be resolved"),
    "address": gettext_lazy("The name leads to an internal address"),
    "connection": gettext_lazy("No connection"),
    "tls": gettext_lazy("No TLS that can be trusted"),
    "timeout": gettext_lazy("No answer within 5 seconds"),
    "protocol": gettext_lazy("The answer was not HTTP"),
    "secret": gettext_lazy("The secret cannot be opened: rotate it"),
}


class WebhookForm(ConsoleForm):
    """Where events go, and which."""

    url = forms.CharField(
        label=gettext_lazy("Address"),
        max_length=URL_LENGTH_MAX,
        help_text=gettext_lazy("An https:// address that the internet can reach."),
        widget=forms.TextInput(
            attrs={
                "inputmode": "url",
                "autocomplete": "off",
                "class": "input input--mono",
                "placeholder": "https://example.com/webhooks",
            }
        ),
    )
    description = forms.CharField(
        label=gettext_lazy("Description"), max_length=NAME_LENGTH_MAX, required=False
    )
    event_types = forms.MultipleChoiceField(
        label=gettext_lazy("Events"),
        choices=[(name, name) for name in EVENT_TYPES],
        required=False,
        help_text=gettext_lazy("None chosen: all of them, later kinds too."),
        widget=forms.CheckboxSelectMultiple,
    )


class WebhooksPage(TenantPage):
    """All endpoints."""

    powers = {"GET": Power.WEBHOOKS_READ, "POST": Power.WEBHOOKS_WRITE}
    proved = frozenset({"POST"})

    def get(self, _request: HttpRequest) -> HttpResponse:
        """The list."""
        return self._show()

    def post(self, request: HttpRequest) -> HttpResponse:
        """Add one; its secret is on the answer and nowhere else."""
        form = WebhookForm(request.POST)
        if not form.is_valid():
            return self._show(form=form, status=400)
        tenant = access_tenant(self.caller, power=Power.WEBHOOKS_WRITE)
        try:
            issued = webhooks.create_webhook(caller=self.caller, tenant=tenant, **form.cleaned_data)
        except InvalidInput as error:
            form.refuse(error)
            return self._show(form=form, status=400)
        return self._show(issued=issued)

    def _show(
        self,
        *,
        form: WebhookForm | None = None,
        issued: IssuedWebhook | None = None,
        status: int = 200,
    ) -> HttpResponse:
        rows = access_webhooks(self.caller, power=Power.WEBHOOKS_READ).order_by("-pk")
        counts = self._counts()
        return self.page(
            "accounts/webhooks.html",
            {
                "endpoints": [describe(row) | {"counts": counts.get(row.pk, {})} for row in rows],
                "form": form or WebhookForm(),
                "is_refused": form is not None,
                "issued": issued,
                "can_write": self.caller.has_power(Power.WEBHOOKS_WRITE),
                "section": "console-webhooks",
            },
            status=status,
        )

    def _counts(self) -> dict[int, dict[str, int]]:
        since = clock.utc_now() - timedelta(days=1)
        rows = access_deliveries(self.caller, power=Power.WEBHOOKS_READ)
        rows = rows.filter(created_at__gte=since).order_by()
        counted: dict[int, dict[str, int]] = {}
        for endpoint, state, number in rows.values_list("endpoint_id", "state").annotate(
            Count("pk")
        ):
            counted.setdefault(endpoint, {})[state] = number
        return counted


class WebhookPage(TenantPage):
    """One endpoint: what is set, and what was sent."""

    powers = {"GET": Power.WEBHOOKS_READ, "POST": Power.WEBHOOKS_WRITE}
    proved = frozenset({"POST"})

    def get(self, _request: HttpRequest, webhookendpoint_id: str) -> HttpResponse:
        """Settings and deliveries."""
        return self.show(access_webhook(self.caller, webhookendpoint_id, power=Power.WEBHOOKS_READ))

    def post(self, request: HttpRequest, webhookendpoint_id: str) -> HttpResponse:
        """Save, switch off or on, send a test, or remove."""
        endpoint = access_webhook(self.caller, webhookendpoint_id, power=Power.WEBHOOKS_WRITE)
        action = request.POST.get("action", "")
        if action == "test":
            webhooks.send_test(caller=self.caller, endpoint=endpoint)
            return self.done(_("A test event is on its way."))
        if action == "delete":
            webhooks.delete_webhook(caller=self.caller, endpoint=endpoint)
            return self.done(
                _("The endpoint and its deliveries are gone."), to=reverse("console-webhooks")
            )
        if action in {"enable", "disable"}:
            changes = {"is_enabled": action == "enable"}
            webhooks.update_webhook(caller=self.caller, endpoint=endpoint, changes=changes)
            return self.done(_("The endpoint was changed."))
        return self._save(request, endpoint)

    def _save(self, request: HttpRequest, endpoint: WebhookEndpoint) -> HttpResponse:
        form = WebhookForm(request.POST)
        if not form.is_valid():
            return self.show(endpoint, form=form, status=400)
        try:
            webhooks.update_webhook(
                caller=self.caller, endpoint=endpoint, changes=form.cleaned_data
            )
        except InvalidInput as error:
            form.refuse(error)
            return self.show(endpoint, form=form, status=400)
        return self.done(_("The endpoint was changed."))

    def show(
        self,
        endpoint: WebhookEndpoint,
        *,
        form: WebhookForm | None = None,
        issued: IssuedWebhook | None = None,
        status: int = 200,
    ) -> HttpResponse:
        """The page; with a form that was refused or a secret that was just made."""
        initial = {
            "url": endpoint.url,
            "description": endpoint.description,
            "event_types": endpoint.event_types,
        }
        rows, older = page_of_deliveries(
            access_deliveries(self.caller, power=Power.WEBHOOKS_READ).filter(endpoint=endpoint),
            self.request,
        )
        return self.page(
            "accounts/webhook.html",
            {
                **describe(endpoint),
                "issued": issued,
                "form": form or WebhookForm(initial=initial),
                "is_refused": form is not None,
                "deliveries": rows,
                "older": older,
                "states": STATES,
                "chosen": self.request.GET.get("state", ""),
                "overlaps": OVERLAPS,
                "can_write": self.caller.has_power(Power.WEBHOOKS_WRITE),
                "section": "console-webhooks",
            },
            status=status,
        )


class RotateWebhookPage(WebhookPage):
    """A new secret; the old one signs beside it for a while."""

    powers = {"POST": Power.WEBHOOKS_WRITE}

    def back(self) -> str:
        """The endpoint."""
        return reverse("console-webhook", args=[self.kwargs["webhookendpoint_id"]])

    def post(self, request: HttpRequest, webhookendpoint_id: str) -> HttpResponse:
        """Show the new secret once."""
        endpoint = access_webhook(self.caller, webhookendpoint_id, power=Power.WEBHOOKS_WRITE)
        chosen = request.POST.get("overlap", "")
        if chosen not in dict(OVERLAPS):
            raise InvalidInput(_("Choose how long the old secret goes on signing."))
        issued = webhooks.rotate_webhook(
            caller=self.caller, endpoint=endpoint, overlap=timedelta(seconds=int(chosen))
        )
        return self.show(issued.endpoint, issued=issued)


class DeliveryPage(TenantPage):
    """One delivery: what was sent, each try, each answer."""

    powers = {"GET": Power.WEBHOOKS_READ, "POST": Power.WEBHOOKS_WRITE}

    def get(self, _request: HttpRequest, webhookdelivery_id: str) -> HttpResponse:
        """The delivery."""
        row = access_delivery(self.caller, webhookdelivery_id, power=Power.WEBHOOKS_READ)
        can_write = self.caller.has_power(Power.WEBHOOKS_WRITE)
        return self.page(
            "accounts/delivery.html",
            {
                **describe_delivery(row),
                "attempts": [
                    {"row": one, "error": ERRORS.get(one.error, one.error)}
                    for one in row.attempts.order_by("-number")
                ],
                "can_write": can_write,
                # It may tell of money, which not everybody who may look here may read.
                "body": row.event.body if can_write else "",
                "section": "console-webhooks",
            },
        )

    def post(self, _request: HttpRequest, webhookdelivery_id: str) -> HttpResponse:
        """Send it again."""
        row = access_delivery(self.caller, webhookdelivery_id, power=Power.WEBHOOKS_WRITE)
        webhooks.replay_delivery(caller=self.caller, delivery=row)
        self.done(_("The event is on its way again."))
        return redirect(self.request.path)


def describe(endpoint: WebhookEndpoint) -> dict[str, Any]:
    """An endpoint as pages show it."""
    state: Any
    if endpoint.disabled:
        state, tone = WHY_DISABLED[endpoint.disabled], "danger"
    elif endpoint.failing_since:
        state, tone = _("Failing"), "warn"
    else:
        state, tone = _("In use"), "ok"
    return {"endpoint": endpoint, "state": state, "tone": tone}


def describe_delivery(row: WebhookDelivery) -> dict[str, Any]:
    """A delivery as pages show it."""
    title, tone = STATES[WebhookDelivery.State(row.state)]
    return {"delivery": row, "title": title, "tone": tone}


def page_of_deliveries(
    rows: QuerySet[WebhookDelivery], request: HttpRequest
) -> tuple[list[dict[str, Any]], int | None]:
    """One page of deliveries, newest first, narrowed by the address; and where the next begins."""
    state = request.GET.get("state", "")
    if state in STATES:
        rows = rows.filter(state=state)
    with suppress(KeyError, ValueError):
        rows = rows.filter(pk__lt=parse_bigint(request.GET["before"]))
    found = list(rows.order_by("-pk")[: SHOWN + 1])
    shown = found[:SHOWN]
    return [describe_delivery(row) for row in shown], shown[-1].pk if len(found) > SHOWN else None
