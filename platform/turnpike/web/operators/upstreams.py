"""Upstreams: who answers, how well, with which credentials. Secrets go in and never come out."""

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.console.operators import OperatorPage, ReasonForm
from accounts.models import NAME_LENGTH_MAX
from billing.console.logs import OUTCOMES
from billing.models.catalog import CatalogModel, PriceBook
from billing.models.upstreams import Route, Upstream
from billing.queries.overall import read_upstream_speeds
from billing.services import upstream_control as control
from billing.services.costs import set_cost_book
from billing.services.upstream_probe import probe_upstream
from turnpike.control.forms import set_choices
from turnpike.kernel.errors import InvalidInput
from turnpike.web.operators.dashboard import describe, find_breakers
from turnpike.web.operators.tiers import history_of

URL_LENGTH_MAX = 500
SECRET_LENGTH_MAX = 4_096
WEIGHT_MAX, PRIORITY_MAX = 1_000_000, 1_000
STATES = {
    "enable": {"is_enabled": True, "is_draining": False},
    "drain": {"is_draining": True},
    "disable": {"is_enabled": False},
}


class UpstreamForm(ReasonForm):
    """What can be changed of an upstream."""

    weight = forms.IntegerField(
        label=gettext_lazy("Weight"),
        min_value=1,
        max_value=WEIGHT_MAX,
        initial=1,
        help_text=gettext_lazy("Its share among upstreams of the same priority."),
    )
    priority = forms.IntegerField(
        label=gettext_lazy("Priority"),
        min_value=0,
        max_value=PRIORITY_MAX,
        initial=0,
        help_text=gettext_lazy("The lowest number is asked first."),
    )
    requests_per_minute = forms.IntegerField(
        label=gettext_lazy("At most, requests per minute"),
        required=False,
        min_value=0,
        max_value=control.CAP_MAX,
    )
    concurrency = forms.IntegerField(
        label=gettext_lazy("At most, requests at once"),
        required=False,
        min_value=0,
        max_value=control.CAP_MAX,
    )
    on_disconnect = forms.ChoiceField(
        label=gettext_lazy("When a client leaves its stream"),
        choices=[
            (Upstream.Disconnect.CANCEL, gettext_lazy("Stop at once")),
            (Upstream.Disconnect.DRAIN, gettext_lazy("Read on to the end")),
        ],
    )


class CostForm(ReasonForm):
    """From which book an upstream's tries are costed."""

    book = forms.ChoiceField(label=gettext_lazy("Price book"), required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = PriceBook.objects.order_by("pk").values_list("name", flat=True)
        none = ("", gettext_lazy("None: its cost is not known"))
        set_choices(self, "book", [none, *((name, name) for name in names)])


class SecretField(forms.CharField):
    """A credential: never rendered, whatever was sent."""

    def __init__(self, **kwargs: Any) -> None:
        widget = forms.PasswordInput(
            render_value=False, attrs={"autocomplete": "off", "class": "input input--mono"}
        )
        super().__init__(max_length=SECRET_LENGTH_MAX, strip=True, widget=widget, **kwargs)


class NewUpstreamForm(UpstreamForm):
    """A new upstream."""

    name = forms.CharField(label=gettext_lazy("Name"), max_length=NAME_LENGTH_MAX)
    kind = forms.ChoiceField(
        label=gettext_lazy("Speaks"),
        choices=[
            (Upstream.Kind.ANTHROPIC, gettext_lazy("Anthropic's Messages API")),
            (Upstream.Kind.OPENAI, gettext_lazy("OpenAI's chat completions")),
        ],
    )
    base_url = forms.URLField(
        label=gettext_lazy("Base URL"),
        max_length=URL_LENGTH_MAX,
        assume_scheme="https",
        widget=forms.URLInput(attrs={"placeholder": "https://api.example.com"}),
    )
    secret = SecretField(
        label=gettext_lazy("Credential"),
        required=False,
        help_text=gettext_lazy("Sealed at once. Nobody can read it again."),
    )
    models = forms.MultipleChoiceField(
        label=gettext_lazy("Models it answers for"),
        required=False,
        help_text=gettext_lazy("None chosen: all that its kind serves."),
        widget=forms.SelectMultiple(attrs={"size": 6}),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = CatalogModel.objects.order_by("-released_at").values_list("model", flat=True)
        set_choices(self, "models", [(name, name) for name in names])
        self.order_fields(["name", "kind", "base_url", "secret"])
        self.order_fields(
            ["name", "kind", "base_url", "secret", *UpstreamForm.base_fields, "models", "reason"]
        )
        self.fields["reason"] = self.fields.pop("reason")


class CredentialForm(ReasonForm):
    """A credential's secret and caps."""

    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=NAME_LENGTH_MAX,
        initial="default",
        help_text=gettext_lazy("A name that is there is rotated: its secret is replaced."),
    )
    secret = SecretField(label=gettext_lazy("Credential"))
    requests_per_minute = forms.IntegerField(
        label=gettext_lazy("At most, requests per minute"), required=False, min_value=0
    )
    concurrency = forms.IntegerField(
        label=gettext_lazy("At most, requests at once"), required=False, min_value=0
    )


class UpstreamsPage(OperatorPage):
    """All upstreams."""

    holds_secret = True

    def get(self, _request: HttpRequest) -> HttpResponse:
        """With how they are."""
        return self._show()

    def post(self, request: HttpRequest) -> HttpResponse:
        """Add one; it serves from the next request."""
        form = NewUpstreamForm(request.POST)
        if not form.is_valid():
            return self._show(form=form, status=400)
        values = dict(form.cleaned_data)
        reason, secret = values.pop("reason"), values.pop("secret")
        if not values["models"]:
            del values["models"]
        try:
            row = control.create_upstream(
                caller=self.caller, values=values, secret=secret or None, reason=reason
            )
        except InvalidInput as error:
            form.refuse(error)
            return self._show(form=form, status=400)
        return self.done(
            _("The upstream was added. It serves from the next request on."),
            to=reverse("operator-upstream", args=[row.pk]),
        )

    def _show(self, *, form: NewUpstreamForm | None = None, status: int = 200) -> HttpResponse:
        rows = list(
            Upstream.objects.prefetch_related("credentials", "routes").order_by(
                "-is_enabled", "default_priority", "name"
            )
        )
        speeds, breakers = read_upstream_speeds(), find_breakers(rows)
        return self.page(
            "operator/upstreams.html",
            {
                "upstreams": [
                    {
                        **describe(row, breakers.get(row.pk), speeds.get(row.pk)),
                        "credentials": [item for item in row.credentials.all() if item.is_enabled],
                        "models": sum(route.is_enabled for route in row.routes.all()),
                    }
                    for row in rows
                ],
                "form": form or NewUpstreamForm(),
                "is_new": form is not None or "new" in self.request.GET,
            },
            status=status,
        )


class UpstreamPage(OperatorPage):
    """One upstream."""

    def get(self, _request: HttpRequest, upstream_id: str) -> HttpResponse:
        """Its settings, credentials, health and history."""
        return self._show(control.get_upstream(upstream_id))

    def post(self, request: HttpRequest, upstream_id: str) -> HttpResponse:
        """Change its settings or its state, or ask it something."""
        action = request.POST.get("action", "")
        if action == "test":
            return self._test(control.get_upstream(upstream_id))
        if action == "cost":
            return self._cost(control.get_upstream(upstream_id))
        if action in STATES:
            return self._change(upstream_id, STATES[action], ReasonForm(request.POST))
        form = UpstreamForm(request.POST)
        if not form.is_valid():
            return self.refused(form)
        changes = {name: value for name, value in form.cleaned_data.items() if name != "reason"}
        return self._change(upstream_id, changes, form)

    def _change(self, number: str, changes: dict[str, Any], form: ReasonForm) -> HttpResponse:
        if not form.is_valid():
            return self.refused(form)
        control.update_upstream(
            caller=self.caller,
            number=number,
            changes=changes,
            reason=form.cleaned_data["reason"],
        )
        return self.done(_("The upstream was changed. It holds from the next request on."))

    def _cost(self, row: Upstream) -> HttpResponse:
        form = CostForm(self.request.POST)
        if not form.is_valid():
            return self.refused(form)
        set_cost_book(
            upstream=row.pk,
            book=form.cleaned_data["book"],
            actor=self.caller,
            reason=form.cleaned_data["reason"],
        )
        return self.done(_("Tries are costed by that book from now on."))

    def _test(self, row: Upstream) -> HttpResponse:
        return self._show(row, probes=probe_upstream(row))

    def _show(self, row: Upstream, *, probes: list[Any] | None = None) -> HttpResponse:
        speed = read_upstream_speeds().get(row.pk)
        described = describe(row, find_breakers([row]).get(row.pk), speed)
        initial = {
            "weight": row.default_weight,
            "priority": row.default_priority,
            "requests_per_minute": row.requests_per_minute,
            "concurrency": row.concurrency,
            "on_disconnect": row.on_disconnect,
        }
        routes = Route.objects.filter(upstream=row).select_related("model")
        return self.page(
            "operator/upstream.html",
            {
                **described,
                "item": described,
                "upstream": row,
                "section": "operator-upstreams",
                "probes": probes,
                "outcomes": [
                    (OUTCOMES.get(name, name), count)
                    for name, count in sorted((speed.outcomes if speed else {}).items())
                ],
                "credentials": [
                    {
                        "row": item,
                        "last_four": item.hint[-control.SHOWN_TAIL :],
                        "form": ReasonForm(auto_id=f"credential{item.pk}_%s"),
                    }
                    for item in row.credentials.order_by("name")
                ],
                "routes": routes.order_by("-model__released_at"),
                "form": UpstreamForm(initial=initial, auto_id="edit_%s"),
                "credential_form": CredentialForm(auto_id="secret_%s"),
                "cost_form": CostForm(
                    initial={"book": row.cost_book.name if row.cost_book else ""},
                    auto_id="cost_%s",
                ),
                "enable_form": ReasonForm(auto_id="enable_%s"),
                "drain_form": ReasonForm(auto_id="drain_%s"),
                "disable_form": ReasonForm(auto_id="disable_%s"),
                "events": history_of(f"upstream/{row.pk}"),
            },
        )


class CredentialPage(OperatorPage):
    """Adding, rotating and disabling credentials of an upstream."""

    holds_secret = True

    def back(self) -> str:
        """The upstream."""
        return reverse("operator-upstream", args=[self.kwargs["upstream_id"]])

    def post(self, request: HttpRequest, upstream_id: str) -> HttpResponse:
        """Seal the secret; or use a credential no more."""
        if request.POST.get("action") == "disable":
            return self._disable(upstream_id)
        form = CredentialForm(request.POST)
        if not form.is_valid():
            return self.refused(form)
        values = form.cleaned_data
        control.replace_credential(
            caller=self.caller,
            number=upstream_id,
            name=values["name"],
            secret=values["secret"],
            caps={name: values[name] for name in control.CAPS},
            reason=values["reason"],
        )
        return self.done(_("The credential is sealed and used from the next request on."))

    def _disable(self, upstream_id: str) -> HttpResponse:
        form = ReasonForm(self.request.POST)
        if not form.is_valid():
            return self.refused(form)
        control.disable_credential(
            caller=self.caller,
            number=upstream_id,
            name=self.request.POST.get("name", "")[:NAME_LENGTH_MAX],
            reason=form.cleaned_data["reason"],
        )
        return self.done(_("The credential is used no more, and its secret is gone."))
