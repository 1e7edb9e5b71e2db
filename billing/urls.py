"""Routes of billing: our own API, and what has the Admin API's shape."""

from django.urls import include, path

from billing.api import (
    catalog,
    features,
    invoices,
    ledger,
    refusals,
    reports,
    requests,
    upstreams,
    usage,
)

api = [
    path("models", catalog.ModelsView.as_view()),
    path("prices", catalog.PricesView.as_view()),
    path("tier", catalog.TierView.as_view()),
    path("balance", ledger.BalanceView.as_view()),
    path("ledger", ledger.LedgerView.as_view()),
    path("billing_details", invoices.BillingDetailsView.as_view()),
    path("invoices", invoices.InvoicesView.as_view()),
    path("invoices/<str:invoice_id>", invoices.InvoiceView.as_view()),
    path("invoices/<str:invoice_id>/pdf", invoices.InvoiceFileView.as_view()),
    path("invoices/<str:invoice_id>/lines", invoices.InvoiceLinesView.as_view()),
    path(
        "invoices/<str:invoice_id>/lines/<str:line>/requests", invoices.LineRequestsView.as_view()
    ),
    path("usage", usage.UsageView.as_view()),
    path("requests", requests.RequestsView.as_view()),
    path("requests/<str:request_id>", requests.RequestView.as_view()),
    path("requests/<str:request_id>/entries", invoices.RequestEntriesView.as_view()),
    path("refusals", refusals.RefusalsView.as_view()),
    path("disconnect", features.DisconnectView.as_view()),
    path("operator/features", features.FeaturesView.as_view()),
    path("operator/tiers/<str:tier>/features", features.TierFeaturesView.as_view()),
    path("operator/tenants/<str:tenant_id>/disconnect", features.OperatorDisconnectView.as_view()),
    path("operator/upstreams", upstreams.UpstreamsView.as_view()),
    path("operator/upstreams/<str:upstream_id>", upstreams.UpstreamView.as_view()),
    path("operator/upstreams/<str:upstream_id>/enable", upstreams.EnableUpstreamView.as_view()),
    path("operator/upstreams/<str:upstream_id>/disable", upstreams.DisableUpstreamView.as_view()),
    path("operator/upstreams/<str:upstream_id>/drain", upstreams.DrainUpstreamView.as_view()),
    path("operator/upstreams/<str:upstream_id>/test", upstreams.ProbeUpstreamView.as_view()),
    path(
        "operator/upstreams/<str:upstream_id>/credentials/<str:name>",
        upstreams.UpstreamCredentialView.as_view(),
    ),
]

organization_urlpatterns = [
    path("usage_report/messages", reports.UsageReportView.as_view()),
    path("cost_report", reports.CostReportView.as_view()),
]

urlpatterns = [
    path("api/v1/", include(api)),
    path("v1/organizations/", include(organization_urlpatterns)),
]
