"""Operators' payments: what tenants paid ahead, what providers said of it, and giving it back."""

import contextlib
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.console.operators import OnceForm, OperatorPage
from billing.models.payments import Payment, PaymentReversal
from billing.queries.payments import (
    PAYMENT_KINDS,
    PAYMENT_STATES,
    REFUND_STATES,
    list_misfits,
    list_payments,
    list_refunds,
    sum_payments,
)
from billing.services.payments.manual import MANUAL
from billing.services.payments.refunds import left_of, refund_payment
from turnpike.control.forms import AmountField
from turnpike.control.pages import parse_bigint
from turnpike.kernel import clock
from turnpike.kernel.errors import NotFound, TurnpikeError

SHOWN = 50
MISFITS_SHOWN = 10
MESSAGES_SHOWN = 20
FILTER_LENGTH_MAX = 64


class RefundForm(OnceForm):
    """How much goes back, and why."""

    amount = AmountField(
        label=gettext_lazy("Amount"),
        required=False,
        help_text=gettext_lazy("Empty: all that is left."),
    )


class _ListPage(OperatorPage):
    """A list with a search, a status and pages."""

    def chosen(self) -> dict[str, str]:
        """What the list is narrowed to."""
        given = self.request.GET
        return {
            "wanted": given.get("wanted", "").strip()[:FILTER_LENGTH_MAX],
            "status": given.get("status", ""),
        }

    def cut(self, rows: QuerySet[Any]) -> tuple[list[Any], int | None]:
        """The rows of one page, and the number before which the next one begins."""
        with contextlib.suppress(KeyError, ValueError):
            rows = rows.filter(pk__lt=parse_bigint(self.request.GET["before"]))
        found = list(rows[: SHOWN + 1])
        shown = found[:SHOWN]
        return shown, shown[-1].pk if len(found) > SHOWN else None


class PaymentsPage(_ListPage):
    """All payments, newest first."""

    def get(self, _request: HttpRequest) -> HttpResponse:
        """One page of them, this month's sums, and what fitted no order."""
        chosen = self.chosen()
        shown, older = self.cut(list_payments(**chosen))
        month = clock.utc_now().replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        return self.page(
            "billing/operator_payments.html",
            {
                "payments": [describe_payment(row) for row in shown],
                "next": older,
                "chosen": chosen,
                "states": [(code, title) for code, (title, _tone) in PAYMENT_STATES.items()],
                "sums": sum_payments(since=month),
                "misfits": list_misfits(limit=MISFITS_SHOWN),
            },
        )


class RefundsPage(_ListPage):
    """All refunds, newest first."""

    def get(self, _request: HttpRequest) -> HttpResponse:
        """One page of them."""
        chosen = self.chosen()
        shown, older = self.cut(list_refunds(**chosen))
        return self.page(
            "billing/operator_refunds.html",
            {
                "refunds": [describe_refund(row) for row in shown],
                "next": older,
                "chosen": chosen,
                "states": [(code, title) for code, (title, _tone) in REFUND_STATES.items()],
                "section": "operator-payments",
            },
        )


class PaymentPage(OperatorPage):
    """One payment: where it stands, what went back, and giving back the rest."""

    def get(self, _request: HttpRequest, payment_id: str) -> HttpResponse:
        """Its facts, refunds and messages."""
        return self._show(_get(payment_id), RefundForm())

    def post(self, request: HttpRequest, payment_id: str) -> HttpResponse:
        """Give money back, once however often the form is sent."""
        row, form = _get(payment_id), RefundForm(request.POST)
        if not form.is_valid():
            return self._show(row, form, status=400)
        try:
            made = refund_payment(
                payment=row.pk,
                amount=form.cleaned_data["amount"],
                key=form.cleaned_data["once"],
                reason=form.cleaned_data["reason"],
                caller=self.caller,
            )
        except TurnpikeError as error:
            form.add_error("amount", error.message)
            return self._show(row, form, status=400)
        return self.done(_("The refund is booked: %(refund)s.") % {"refund": made.public_id})

    def _show(self, row: Payment, form: RefundForm, *, status: int = 200) -> HttpResponse:
        left = left_of(row)
        refunds = row.reversals.select_related("tenant", "payment").order_by("-pk")
        return self.page(
            "billing/operator_payment.html",
            {
                **describe_payment(row),
                "left_nano": left,
                "refunds": [describe_refund(refund) for refund in refunds[:SHOWN]],
                "messages_of_provider": row.events.order_by("-pk")[:MESSAGES_SHOWN],
                "is_manual": row.provider == MANUAL,
                "form": form,
                "section": "operator-payments",
            },
            status=status,
        )


def describe_payment(row: Payment) -> dict[str, Any]:
    """A payment in words."""
    state, tone = PAYMENT_STATES[row.status]
    return {"row": row, "kind": PAYMENT_KINDS[row.kind], "state": state, "tone": tone}


def describe_refund(row: PaymentReversal) -> dict[str, Any]:
    """A refund in words."""
    state, tone = REFUND_STATES[row.status]
    return {"row": row, "state": state, "tone": tone}


def _get(payment_id: str) -> Payment:
    try:
        rows = Payment.objects.select_related("tenant")
        return rows.get(uuid=Payment.parse_public_id(payment_id))
    except (ValueError, Payment.DoesNotExist) as error:
        raise NotFound("There is no such payment.") from error
