"""Operators' redemption codes: made in batches and shown once, listed by their end, revoked."""

import contextlib
from datetime import UTC, datetime, time, timedelta
from typing import Any
from uuid import UUID

from django import forms
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from accounts.console.operators import OnceForm, OperatorPage, ReasonForm
from billing.models.payments import RedemptionCode
from billing.queries.payments import CODE_STATES, list_codes, state_of_code
from billing.services.redemption import (
    BATCH,
    COUNT_MAX,
    CREDIT_DAYS_MAX,
    USES_MAX,
    CodeTerms,
    NewCode,
    batch_id,
    create_codes,
    withdraw_batch,
    withdraw_code,
)
from turnpike.control.forms import AmountField
from turnpike.control.pages import parse_bigint
from turnpike.kernel import clock, ids
from turnpike.kernel.errors import InvalidInput, NotFound

SHOWN = 50


class CodesForm(OnceForm):
    """A batch of codes that are worth the same."""

    count = forms.IntegerField(
        label=gettext_lazy("How many codes"), min_value=1, max_value=COUNT_MAX, initial=1
    )
    amount = AmountField(label=gettext_lazy("Worth, each, in dollars"))
    uses_max = forms.IntegerField(
        label=gettext_lazy("Uses of each"),
        min_value=1,
        max_value=USES_MAX,
        initial=1,
        help_text=gettext_lazy("By different tenants: each redeems a code once."),
    )
    last_day = forms.DateField(
        label=gettext_lazy("To be redeemed until"),
        required=False,
        help_text=gettext_lazy("The end of that day, UTC. Empty: without an end."),
        widget=forms.DateInput(attrs={"type": "date"}),
    )
    credit_days = forms.IntegerField(
        label=gettext_lazy("The credit lasts, days"),
        required=False,
        min_value=1,
        max_value=CREDIT_DAYS_MAX,
        help_text=gettext_lazy("From the day on which it is redeemed. Empty: without an end."),
    )

    def clean_once(self) -> UUID:
        """What names the batch."""
        try:
            return UUID(self.cleaned_data["once"])
        except ValueError as error:
            raise forms.ValidationError(_("Open the form anew.")) from error

    def terms(self) -> CodeTerms:
        """What each code is worth."""
        day = self.cleaned_data["last_day"]
        end = None if day is None else datetime.combine(day, time(tzinfo=UTC)) + timedelta(days=1)
        return CodeTerms(
            amount=self.cleaned_data["amount"] or 0,
            uses_max=self.cleaned_data["uses_max"],
            ends_at=end,
            credit_days=self.cleaned_data["credit_days"],
        )


class CodesPage(OperatorPage):
    """All codes, newest first; only their last five letters are known."""

    def get(self, _request: HttpRequest) -> HttpResponse:
        """One page of them."""
        return self._show(CodesForm())

    def post(self, request: HttpRequest) -> HttpResponse:
        """Make a batch; the codes are on the answer and nowhere else."""
        form = CodesForm(request.POST)
        if not form.is_valid():
            return self._show(form, status=400)
        try:
            made = create_codes(
                count=form.cleaned_data["count"],
                terms=form.terms(),
                batch=form.cleaned_data["once"],
                reason=form.cleaned_data["reason"],
                caller=self.caller,
            )
        except InvalidInput as error:
            form.refuse(error)
            return self._show(form, status=400)
        return self._show(CodesForm(), made=made)

    def _show(
        self, form: CodesForm, *, made: list[NewCode] | None = None, status: int = 200
    ) -> HttpResponse:
        state, batch = self.request.GET.get("state", ""), self.request.GET.get("batch", "")
        now, words = clock.utc_now(), [code.words for code in made or () if code.words]
        rows = list_codes(state=state, batch=_batch_of(batch) if batch else None, at=now)
        with contextlib.suppress(KeyError, ValueError):
            rows = rows.filter(pk__lt=parse_bigint(self.request.GET["before"]))
        found = list(rows[: SHOWN + 1])
        shown = found[:SHOWN]
        return self.page(
            "billing/operator_codes.html",
            {
                "codes": [_describe(row, now) for row in shown],
                "next": shown[-1].pk if len(found) > SHOWN else None,
                "state": state,
                "states": [("", _("All")), *((key, pair[0]) for key, pair in CODE_STATES.items())],
                "batch": batch,
                "batch_form": ReasonForm(auto_id="batch_%s"),
                "form": form,
                "is_form_open": status != 200 or "new" in self.request.GET,
                "made": made,
                "words": "\n".join(words),
                "fresh": len(words),
            },
            status=status,
        )


class CodePage(OperatorPage):
    """Revoking one code."""

    def back(self) -> str:
        """The list."""
        return reverse("operator-codes")

    def post(self, request: HttpRequest, code_id: str) -> HttpResponse:
        """Let nobody redeem it any more."""
        form = ReasonForm(request.POST)
        if not form.is_valid():
            return self.refused(form)
        withdraw_code(
            code=_get(code_id),
            reason=form.cleaned_data["reason"],
            caller=self.caller,
            at=clock.utc_now(),
        )
        return self.done(_("The code is revoked. What was redeemed stays."))


class BatchPage(OperatorPage):
    """Revoking what is left of a batch."""

    def back(self) -> str:
        """The batch's list."""
        return f"{reverse('operator-codes')}?batch={self.kwargs['batch_id']}"

    def post(self, request: HttpRequest, batch_id: str) -> HttpResponse:
        """Let nobody redeem its codes any more."""
        form = ReasonForm(request.POST)
        if not form.is_valid():
            return self.refused(form)
        ended = withdraw_batch(
            batch=_batch_of(batch_id),
            reason=form.cleaned_data["reason"],
            caller=self.caller,
            at=clock.utc_now(),
        )
        said = ngettext("%(count)s code is revoked.", "%(count)s codes are revoked.", ended)
        return self.done(said % {"count": ended})


def _describe(row: RedemptionCode, at: datetime) -> dict[str, Any]:
    state = state_of_code(row, at)
    title, tone = CODE_STATES[state]
    can_end = row.withdrawn_at is None
    return {
        "row": row,
        "state": title,
        "tone": tone,
        "batch": None if row.batch is None else batch_id(row.batch),
        "form": ReasonForm(auto_id=f"revoke-{row.pk}-%s") if can_end else None,
    }


def _batch_of(text: str) -> UUID:
    try:
        return ids.parse_public_id(BATCH, text)
    except ValueError as error:
        raise NotFound("There is no such batch.") from error


def _get(code_id: str) -> RedemptionCode:
    try:
        return RedemptionCode.objects.get(uuid=RedemptionCode.parse_public_id(code_id))
    except (ValueError, RedemptionCode.DoesNotExist) as error:
        raise NotFound("There is no such code.") from error
