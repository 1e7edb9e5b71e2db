"""Webhook deliveries of all tenants, and the endpoints that take nothing."""

from typing import Any

from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from accounts.console.operators import OperatorPage
from accounts.console.webhooks import STATES, describe, page_of_deliveries
from accounts.models import WebhookDelivery, WebhookEndpoint

FAILING_SHOWN_MAX = 50


class WebhooksPage(OperatorPage):
    """What is sent, and what fails. Bodies are the tenants' own and are not shown."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """One page of deliveries."""
        deliveries: QuerySet[WebhookDelivery] = WebhookDelivery.objects.select_related(
            "event", "endpoint", "tenant"
        )
        rows, older = page_of_deliveries(deliveries, request)
        ill = WebhookEndpoint.objects.filter(
            Q(failing_since__isnull=False) | ~Q(disabled="")
        ).select_related("tenant")
        return self.page(
            "accounts/operator_webhooks.html",
            {
                "figures": _figures(),
                "failing": [describe(row) for row in ill.order_by("-pk")[:FAILING_SHOWN_MAX]],
                "deliveries": rows,
                "older": older,
                "states": STATES,
                "chosen": request.GET.get("state", ""),
            },
        )


def _figures() -> list[tuple[str, Any]]:
    counted = WebhookDelivery.objects.order_by().values_list("state").annotate(Count("pk"))
    counts = dict(counted)
    return [
        (_("Endpoints"), WebhookEndpoint.objects.count()),
        (_("Waiting"), counts.get("waiting", 0)),
        (_("Delivered"), counts.get("delivered", 0)),
        (_("Given up"), counts.get("failed", 0)),
    ]
