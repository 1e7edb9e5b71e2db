"""Models: which are sold, by which names, and who answers for them."""

from datetime import timedelta
from typing import Any

from django import forms
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from redis import RedisError

from accounts.console.operators import OperatorPage, ReasonForm
from accounts.models import Tenant
from billing.models.catalog import CatalogModel
from billing.models.upstreams import Route
from billing.queries.live import read_unknown_models
from billing.queries.overall import charged_by_tenant, days_until
from billing.services import selling
from turnpike.kernel import clock
from turnpike.kernel.errors import NotFound
from turnpike.web.operators.tiers import history_of
from turnpike.web.operators.words import LIFECYCLES

UNKNOWN_SHOWN = 8
UNKNOWN_SPAN = timedelta(days=1)
WATCHED_MAX = 200


class SwitchForm(ReasonForm):
    """Whether a model is sold, and whether its successor may answer for it."""

    is_enabled = forms.BooleanField(label=gettext_lazy("Sold"), required=False)
    is_successor_allowed = forms.BooleanField(
        label=gettext_lazy("Its successor may answer once it is retired"), required=False
    )


class AliasForm(ReasonForm):
    """Another name."""

    alias = forms.CharField(
        label=gettext_lazy("Alias"),
        max_length=selling.ALIAS_LENGTH_MAX,
        widget=forms.TextInput(attrs={"class": "input input--mono", "autocomplete": "off"}),
    )


class RouteForm(ReasonForm):
    """Who answers, and how often."""

    is_enabled = forms.BooleanField(label=gettext_lazy("Answers"), required=False)
    upstream_model = forms.CharField(label=gettext_lazy("Its name there"), max_length=200)
    weight = forms.IntegerField(
        label=gettext_lazy("Weight"), min_value=1, max_value=selling.WEIGHT_MAX
    )
    priority = forms.IntegerField(
        label=gettext_lazy("Priority"),
        min_value=0,
        max_value=selling.PRIORITY_MAX,
        help_text=gettext_lazy("The lowest number is asked first."),
    )


class ModelsPage(OperatorPage):
    """All models of the catalogue."""

    def get(self, _request: HttpRequest) -> HttpResponse:
        """With an alarm for names that are asked for and not sold."""
        rows = CatalogModel.objects.prefetch_related("aliases", "routes__upstream")
        context: dict[str, Any] = {
            "models": [describe(row) for row in rows.order_by("-is_enabled", "-released_at")],
        }
        try:
            context["unknown"] = list_unknown()
        except RedisError:
            context["is_away"] = True
        return self.page("operator/models.html", context)


class ModelPage(OperatorPage):
    """One model: its switches, its aliases, its routes."""

    def get(self, _request: HttpRequest, model: str) -> HttpResponse:
        """Its switches, names and routes."""
        routes = Route.objects.select_related("upstream").order_by("priority", "upstream__name")
        rows = CatalogModel.objects.prefetch_related("aliases", Prefetch("routes", routes))
        row = rows.filter(model=model).first()
        if row is None:
            raise NotFound(f"There is no model {model!r}.")
        switches = {
            "is_enabled": row.is_enabled,
            "is_successor_allowed": row.is_successor_allowed,
        }
        return self.page(
            "operator/model.html",
            {
                "item": describe(row),
                "model": row,
                "section": "operator-models",
                "aliases": sorted(row.aliases.all(), key=lambda alias: alias.alias),
                "switch_form": SwitchForm(initial=switches, auto_id="switch_%s"),
                "alias_form": AliasForm(auto_id="alias_%s"),
                "routes": [_route(route) for route in row.routes.all()],
                "events": history_of(f"model/{row.model}"[:64]),
            },
        )

    def post(self, request: HttpRequest, model: str) -> HttpResponse:
        """Do what the form says; it holds from the next request."""
        action = request.POST.get("action", "")
        if action == "alias":
            return self._add_alias(model)
        if action == "remove-alias":
            return self._remove_alias(model)
        if action == "route":
            return self._change_route(model)
        return self._switch(model)

    def _switch(self, model: str) -> HttpResponse:
        form = SwitchForm(self.request.POST)
        if not form.is_valid():
            return self.refused(form)
        selling.switch_model(caller=self.caller, model=model, **form.cleaned_data)
        return self.done(_("The model was changed. It holds from the next request on."))

    def _add_alias(self, model: str) -> HttpResponse:
        form = AliasForm(self.request.POST)
        if not form.is_valid():
            return self.refused(form)
        selling.add_alias(caller=self.caller, model=model, **form.cleaned_data)
        return self.done(_("The model can be asked for by that name from the next request on."))

    def _remove_alias(self, model: str) -> HttpResponse:
        form = AliasForm(self.request.POST)
        if not form.is_valid():
            return self.refused(form)
        selling.remove_alias(caller=self.caller, model=model, **form.cleaned_data)
        return self.done(_("The name is no longer known."))

    def _change_route(self, model: str) -> HttpResponse:
        form = RouteForm(self.request.POST)
        number = self.request.POST.get("route", "")
        if not form.is_valid():
            return self.refused(form)
        values = dict(form.cleaned_data)
        reason = values.pop("reason")
        selling.change_route(
            caller=self.caller,
            model=model,
            route=int(number) if number.isdecimal() and len(number) < 19 else 0,
            changes=values,
            reason=reason,
        )
        return self.done(_("The route was changed. It holds from the next request on."))


def describe(row: CatalogModel) -> dict[str, Any]:
    """A model as lists show it."""
    title, tone = LIFECYCLES[row.lifecycle]
    routes = [route for route in row.routes.all() if route.is_enabled]
    return {
        "row": row,
        "lifecycle": title,
        "tone": tone,
        "aliases": sorted(alias.alias for alias in row.aliases.all()),
        "answers": sorted(route.upstream.name for route in routes if route.upstream.is_enabled),
    }


def list_unknown() -> list[dict[str, Any]]:
    """Names that were asked for in a day and are not sold. Raises RedisError."""
    since, today = days_until(clock.utc_now())
    charged = charged_by_tenant(tenants=None, since=since, until=today)
    busy = sorted(charged, key=lambda number: -charged[number])[:WATCHED_MAX]
    newest = Tenant.objects.order_by("-pk").values_list("pk", flat=True)[:WATCHED_MAX]
    watched = list(dict.fromkeys([*busy, *newest]))[:WATCHED_MAX]
    found = read_unknown_models(watched, since=clock.utc_now() - UNKNOWN_SPAN)
    shown = list(found.items())[:UNKNOWN_SHOWN]
    tenants = Tenant.objects.in_bulk({number for _name, counts in shown for number in counts})
    return [
        {
            "name": name,
            "count": counts.total(),
            "tenants": [tenants[number] for number, _count in counts.most_common(3)],
        }
        for name, counts in shown
    ]


def _route(route: Route) -> dict[str, Any]:
    values = {
        "is_enabled": route.is_enabled,
        "upstream_model": route.upstream_model,
        "weight": route.weight,
        "priority": route.priority,
    }
    return {"row": route, "form": RouteForm(initial=values, auto_id=f"route{route.pk}_%s")}
