"""Live traffic: what runs at this moment, and the switches that stop it."""

from collections import Counter
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from redis import RedisError

from accounts.access import access_any_tenant
from accounts.console.operators import OperatorPage, ReasonForm
from accounts.models import ApiKey, Tenant, TenantStatus
from accounts.services.tenants import resume_tenant, suspend_tenant
from billing.models.catalog import CatalogModel
from billing.models.upstreams import Upstream
from billing.queries.live import OpenRequests, read_breakers, read_open_requests, read_queues
from billing.services.selling import switch_model
from billing.services.upstream_control import update_upstream
from turnpike.control.forms import set_choices
from turnpike.control.polling import is_polled
from turnpike.kernel import clock
from turnpike.kernel.errors import InvalidInput
from turnpike.web.operators.words import BREAKERS

TENANTS_SHOWN_MAX = 20
REQUESTS_SHOWN = 30
STOPPED_SHOWN_MAX = 50
TENANT, MODEL, UPSTREAM = "tenant", "model", "upstream"


class TenantSwitchForm(ReasonForm):
    """Which tenant."""

    target = forms.CharField(
        label=gettext_lazy("Tenant's id"),
        max_length=64,
        widget=forms.TextInput(
            attrs={
                "class": "input input--mono",
                "autocomplete": "off",
                "placeholder": "ten_",
                "list": "running-tenants",
            }
        ),
    )


class ModelSwitchForm(ReasonForm):
    """Which model."""

    target = forms.ChoiceField(label=gettext_lazy("Model"))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = CatalogModel.objects.order_by("-is_enabled", "-released_at")
        choices = [(name, name) for name in names.values_list("model", flat=True)]
        set_choices(self, "target", choices)


class UpstreamSwitchForm(ReasonForm):
    """Which upstream."""

    target = forms.ChoiceField(label=gettext_lazy("Upstream"))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        rows = Upstream.objects.order_by("name").values_list("pk", "name")
        set_choices(self, "target", [(str(number), name) for number, name in rows])


FORMS: dict[str, type[ReasonForm]] = {
    TENANT: TenantSwitchForm,
    MODEL: ModelSwitchForm,
    UPSTREAM: UpstreamSwitchForm,
}


class LivePage(OperatorPage):
    """What runs now."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """The page; for its own refreshing, the live part alone."""
        try:
            context = running()
        except RedisError:
            context = {"is_away": True}
        context["now"] = clock.utc_now()
        if is_polled(request):
            return self.page("operator/live.html#live", context)
        context |= {
            "tenant_form": TenantSwitchForm(auto_id="tenant_%s"),
            "model_form": ModelSwitchForm(auto_id="model_%s"),
            "upstream_form": UpstreamSwitchForm(auto_id="upstream_%s"),
            "stopped": list_stopped(),
        }
        return self.page("operator/live.html", context)


class SwitchPage(OperatorPage):
    """The kill switch: off or on, for a tenant, a model or an upstream."""

    def back(self) -> str:
        """The page with the switches."""
        return reverse("operator-live")

    def post(self, request: HttpRequest, kind: str) -> HttpResponse:
        """Turn it; holds from the next request. What runs ends by itself."""
        if kind not in FORMS:
            raise InvalidInput("There is no such switch.")
        form = FORMS[kind](request.POST)
        if not form.is_valid():
            return self.refused(form)
        target, reason = form.cleaned_data["target"].strip(), form.cleaned_data["reason"]
        is_on = request.POST.get("turn") == "on"
        if kind == TENANT:
            tenant = access_any_tenant(self.caller, target)
            change = resume_tenant if is_on else suspend_tenant
            change(caller=self.caller, tenant=tenant, reason=reason)
        elif kind == MODEL:
            switch_model(caller=self.caller, model=target, is_enabled=is_on, reason=reason)
        else:
            changes = {"is_enabled": is_on}
            update_upstream(caller=self.caller, number=target, changes=changes, reason=reason)
        if is_on:
            return self.done(_("It is switched on again, from the next request on."))
        return self.done(
            _("It is switched off from the next request on. What runs ends by itself.")
        )


def running() -> dict[str, Any]:
    """Requests in flight by tenant and model, the oldest ones, queues and breakers."""
    found = read_open_requests()
    rows = list(Upstream.objects.filter(is_enabled=True).order_by("default_priority", "name"))
    breakers = read_breakers([row.pk for row in rows])
    return {
        "running": found,
        "queues": read_queues(),
        "by_tenant": _by_tenant(found),
        "by_model": Counter(item.model for item in found.requests if item.model).most_common(8),
        "requests": _requests(found),
        "read": len(found.requests),
        "breakers": [
            {
                "row": row,
                "title": BREAKERS[breakers[row.pk].state][0],
                "tone": BREAKERS[breakers[row.pk].state][1],
                "resting": breakers[row.pk].resting_credentials,
            }
            for row in rows
        ],
    }


def list_stopped() -> list[dict[str, Any]]:
    """What is switched off now, with the form that switches it on."""
    found: list[dict[str, Any]] = []
    tenants = Tenant.objects.filter(status=TenantStatus.SUSPENDED).order_by("-pk")
    for tenant in tenants[:STOPPED_SHOWN_MAX]:
        found.append(_stopped(TENANT, tenant.public_id, tenant.name, tenant.status_reason))
    for name in CatalogModel.objects.filter(is_enabled=False).values_list("model", flat=True):
        found.append(_stopped(MODEL, name, name, ""))
    for number, name in Upstream.objects.filter(is_enabled=False).values_list("pk", "name"):
        found.append(_stopped(UPSTREAM, str(number), name, ""))
    return found[:STOPPED_SHOWN_MAX]


def _stopped(kind: str, target: str, title: str, note: str) -> dict[str, Any]:
    kinds = {
        TENANT: _("Suspended tenant"),
        MODEL: _("Model that is not sold"),
        UPSTREAM: _("Upstream out of service"),
    }
    return {
        "kind": kind,
        "target": target,
        "title": title,
        "note": f"{kinds[kind]}: {note}" if note else kinds[kind],
        "form": ReasonForm(auto_id=f"on_{kind}_{target}_%s"),
    }


def _by_tenant(found: OpenRequests) -> list[dict[str, Any]]:
    counts = list(found.by_tenant.items())[:TENANTS_SHOWN_MAX]
    tenants = Tenant.objects.in_bulk([number for number, _count in counts])
    largest = max((count for _number, count in counts), default=0)
    return [
        {"tenant": tenants[number], "count": count, "largest": largest}
        for number, count in counts
        if number in tenants
    ]


def _requests(found: OpenRequests) -> list[dict[str, Any]]:
    shown = found.requests[:REQUESTS_SHOWN]
    tenants = Tenant.objects.in_bulk({item.tenant for item in shown})
    keys = ApiKey.objects.in_bulk({item.key for item in shown if item.key is not None})
    return [
        {"item": item, "tenant": tenants.get(item.tenant), "key": keys.get(item.key or 0)}
        for item in shown
    ]
