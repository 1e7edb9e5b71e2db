"""Usage in doubt: attempts whose answer nobody read, and what holds did not cover."""

from datetime import UTC, timedelta
from typing import Any
from uuid import UUID

from django import forms
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.console.operators import OperatorPage, ReasonForm
from accounts.models import Tenant
from billing.console.logs import OUTCOMES
from billing.models.upstreams import Upstream
from billing.queries.doubts import (
    WHOLE_REQUEST,
    Doubt,
    Evidence,
    find_doubt,
    list_reviews,
    list_unknown,
    list_waived,
    read_evidence,
)
from billing.queries.requests import list_attempts, list_revisions
from billing.services.doubts import (
    COUNT_MAX,
    KINDS,
    accept_doubt,
    charge_doubt,
    rehearse_charge,
    why_not_charged,
)
from billing.services.upstream_reports import compare_reports
from turnpike.kernel import ids
from turnpike.kernel.errors import InvalidInput, NotFound
from turnpike.kernel.money import nanos_of_micros

SHOWN = 50
UNKNOWN, WAIVED = "unknown", "waived"
TABS = [
    (UNKNOWN, gettext_lazy("Attempts without an answer")),
    (WAIVED, gettext_lazy("Beyond what was held")),
]
KIND_TITLES: dict[str, Any] = {
    "uncached_input": gettext_lazy("Input tokens"),
    "output": gettext_lazy("Output tokens"),
    "cache_read": gettext_lazy("Cache reads"),
    "cache_write_5m": gettext_lazy("Cache writes, 5 min"),
    "cache_write_1h": gettext_lazy("Cache writes, 1 h"),
    "web_search": gettext_lazy("Web searches"),
}
ACCEPT, CHARGE, READ = "accept", "charge", "read"


class DecisionForm(ReasonForm):
    """What the upstream billed, and who bears it."""

    action = forms.ChoiceField(choices=[(ACCEPT, ACCEPT), (CHARGE, CHARGE)], required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in KINDS:
            self.fields[name] = forms.IntegerField(
                label=KIND_TITLES[name],
                required=False,
                min_value=0,
                max_value=COUNT_MAX,
                widget=forms.NumberInput(attrs={"class": "input", "min": "0"}),
            )

    @property
    def counts(self) -> dict[str, int]:
        """The counts by kind."""
        return {name: self.cleaned_data[name] or 0 for name in KINDS}


class DoubtsPage(OperatorPage):
    """What nobody decided about, newest first."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """One page of a kind."""
        tab = WAIVED if request.GET.get("kind") == WAIVED else UNKNOWN
        after = _uuid(request.GET.get("before", ""))
        read = list_waived if tab == WAIVED else list_unknown
        found = read(limit=SHOWN + 1, after=after)
        shown = found[:SHOWN]
        tenants = Tenant.objects.in_bulk({item.tenant for item in shown})
        names = dict(Upstream.objects.values_list("pk", "name"))
        return self.page(
            "operator/doubts.html",
            {
                "items": [
                    {
                        "row": item,
                        "tenant": tenants.get(item.tenant),
                        "upstream": names.get(item.upstream or 0, "–"),
                        "hold_nano": nanos_of_micros(item.hold_micro),
                    }
                    for item in shown
                ],
                "tabs": TABS,
                "tab": tab,
                "next": shown[-1].request if len(found) > SHOWN else None,
            },
        )

    def post(self, request: HttpRequest) -> HttpResponse:
        """Accept what was ticked: the operator bears what the holds did not cover."""
        form = ReasonForm(request.POST)
        if not form.is_valid():
            return self.refused(form)
        chosen = [_uuid(text) for text in request.POST.getlist("request")[:SHOWN]]
        doubts = [find_doubt(request=number, attempt=WHOLE_REQUEST) for number in chosen if number]
        for doubt in sorted((item for item in doubts if item), key=lambda item: item.tenant):
            accept_doubt(
                caller=self.caller,
                request=doubt.request,
                attempt=WHOLE_REQUEST,
                counts={},
                reason=form.cleaned_data["reason"],
            )
        return self.done(_("What was chosen is accepted."))

    def back(self) -> str:
        """The tab with the ticks."""
        return f"{reverse('operator-doubts')}?kind={WAIVED}"


class DoubtPage(OperatorPage):
    """One attempt, or what a request's hold did not cover, with the upstream's evidence."""

    def get(self, request: HttpRequest, request_id: str) -> HttpResponse:
        """Evidence, what charging would come to, and the decision."""
        doubt = _find(request_id, request.GET.get("attempt"))
        evidence = read_evidence(doubt)
        return self._show(doubt, evidence, DecisionForm(initial=_suggested(evidence)))

    def post(self, request: HttpRequest, request_id: str) -> HttpResponse:
        """Decide, once."""
        doubt = _find(request_id, request.POST.get("attempt"))
        if request.POST.get("action") == READ:
            return self._read_report(doubt)
        form = DecisionForm(request.POST)
        if not form.is_valid():
            return self._show(doubt, read_evidence(doubt), form, status=400)
        is_charge = form.cleaned_data["action"] == CHARGE
        decide = charge_doubt if is_charge else accept_doubt
        try:
            decide(
                caller=self.caller,
                request=doubt.request,
                attempt=doubt.attempt,
                counts=form.counts,
                reason=form.cleaned_data["reason"],
            )
        except InvalidInput as error:
            form.refuse(error)
            return self._show(doubt, read_evidence(doubt), form, status=400)
        done = _("It was charged.") if is_charge else _("It is accepted.")
        return self.done(done, to=reverse("operator-doubts"))

    def _read_report(self, doubt: Doubt) -> HttpResponse:
        """Ask the upstreams now for the day of an attempt; what they say is kept."""
        at = doubt.started_at.astimezone(UTC)
        day = at.replace(hour=0, minute=0, second=0, microsecond=0)
        compare_reports(since=day, until=day + timedelta(days=1))
        path = reverse("operator-doubt", args=[doubt.public_id])
        return self.done(
            _("The usage reports of that day were asked for."),
            to=f"{path}?attempt={doubt.attempt}",
        )

    def _show(
        self, doubt: Doubt, evidence: Evidence | None, form: DecisionForm, *, status: int = 200
    ) -> HttpResponse:
        suggested = _suggested(evidence)
        revisions = list_revisions(tenant=doubt.tenant, request=doubt.request)
        attempts = list_attempts(tenant=doubt.tenant, request=doubt.request)
        others = [row for row in attempts if row.attempt != doubt.attempt] if doubt.attempt else []
        reviews = list_reviews(doubt.request)
        names = dict(Upstream.objects.values_list("pk", "name"))
        return self.page(
            "operator/doubt.html",
            {
                "doubt": doubt,
                "tenant": Tenant.objects.filter(pk=doubt.tenant).first(),
                "upstream": names.get(doubt.upstream or 0, ""),
                "outcome": OUTCOMES.get(doubt.outcome, doubt.outcome),
                "hold_nano": nanos_of_micros(doubt.hold_micro),
                "evidence": evidence,
                "figures": _figures(evidence),
                "would": rehearse_charge(request=doubt.request, counts=suggested)
                if suggested
                else None,
                "why_not": why_not_charged(revisions, others),
                "reviews": reviews,
                "is_decided": any(row.attempt == doubt.attempt for row in reviews),
                "form": form,
                "fields": [form[name] for name in KINDS],
                "section": "operator-doubts",
            },
            status=status,
        )


def _find(request_id: str, attempt: str | None) -> Doubt:
    """The attempt that is named, else the one without an answer, else the whole request."""
    try:
        number = ids.parse_public_id(ids.REQUEST, request_id)
    except ValueError as error:
        raise NotFound("There is no such request.") from error
    if attempt is not None and attempt.isdecimal():
        found = find_doubt(request=number, attempt=min(int(attempt[:6]), 32_767))
    else:
        found = find_doubt(request=number, attempt=WHOLE_REQUEST)
    if found is None:
        raise NotFound("There is no such request.")
    return found


def _suggested(evidence: Evidence | None) -> dict[str, int]:
    """What the upstream counted beyond us, where nothing else can be meant."""
    if evidence is None or not evidence.is_its_own:
        return {}
    return {kind: count for kind, count in evidence.missing.items() if kind in KINDS}


def _figures(evidence: Evidence | None) -> list[dict[str, Any]]:
    if evidence is None:
        return []
    return [
        {
            "title": KIND_TITLES.get(kind, kind),
            "ours": here,
            "reported": there,
            "more": max(0, there - here),
        }
        for kind, (here, there) in sorted(evidence.figures.items())
    ]


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
