"""Routes of billing: our own API, and what has the Admin API's shape."""

from django.urls import include, path

from billing.api import catalog, ledger, refusals, reports, requests, usage

api = [
    path("models", catalog.ModelsView.as_view()),
    path("prices", catalog.PricesView.as_view()),
    path("tier", catalog.TierView.as_view()),
    path("balance", ledger.BalanceView.as_view()),
    path("ledger", ledger.LedgerView.as_view()),
    path("usage", usage.UsageView.as_view()),
    path("requests", requests.RequestsView.as_view()),
    path("requests/<str:request_id>", requests.RequestView.as_view()),
    path("refusals", refusals.RefusalsView.as_view()),
]

organization_urlpatterns = [
    path("usage_report/messages", reports.UsageReportView.as_view()),
    path("cost_report", reports.CostReportView.as_view()),
]

urlpatterns = [
    path("api/v1/", include(api)),
    path("v1/organizations/", include(organization_urlpatterns)),
]
