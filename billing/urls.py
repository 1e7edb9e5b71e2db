"""Routes of billing: our own API, and what has the Admin API's shape."""

from django.urls import include, path

from billing.api import (
    batches,
    catalog,
    credit,
    exports,
    features,
    invoices,
    ledger,
    operator_differences,
    operator_invoices,
    operator_prices,
    payments,
    refusals,
    reports,
    requests,
    upstreams,
    usage,
)
from billing.api.payment_webhooks import stripe_webhook

api = [
    path("models", catalog.ModelsView.as_view()),
    path("prices", catalog.PricesView.as_view()),
    path("tier", catalog.TierView.as_view()),
    path("balance", ledger.BalanceView.as_view()),
    path("top_ups", payments.TopUpsView.as_view()),
    path("auto_reload", credit.AutoReloadView.as_view()),
    path("redemptions", payments.RedemptionsView.as_view()),
    path("operator/tenants/<str:tenant_id>/transfers", payments.TransfersView.as_view()),
    path("operator/tenants/<str:tenant_id>/grants", credit.GrantsView.as_view()),
    path("operator/tenants/<str:tenant_id>/adjustments", credit.AdjustmentsView.as_view()),
    path("operator/payments/<str:payment_id>/refunds", payments.RefundsView.as_view()),
    path("operator/codes", payments.CodesView.as_view()),
    path("ledger", ledger.LedgerView.as_view()),
    path("exports/ledger", exports.LedgerExportView.as_view()),
    path("exports/usage", exports.UsageExportView.as_view()),
    path("exports/invoices", exports.InvoicesExportView.as_view()),
    path("operator/exports/<str:table>", exports.OperatorExportView.as_view()),
    path("billing_details", invoices.BillingDetailsView.as_view()),
    path("invoices", invoices.InvoicesView.as_view()),
    path("invoices/<str:invoice_id>", invoices.InvoiceView.as_view()),
    path("invoices/<str:invoice_id>/pay", payments.InvoicePaymentsView.as_view()),
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
    path("operator/invoices", operator_invoices.OperatorInvoicesView.as_view()),
    path("operator/invoices/run", operator_invoices.CloseMonthsView.as_view()),
    path("operator/invoices/<str:invoice_id>", operator_invoices.OperatorInvoiceView.as_view()),
    path("operator/invoices/<str:invoice_id>/lines", operator_invoices.OperatorLinesView.as_view()),
    path(
        "operator/invoices/<str:invoice_id>/lines/<str:line>/requests",
        operator_invoices.OperatorLineRequestsView.as_view(),
    ),
    path(
        "operator/requests/<str:request_id>/entries",
        operator_invoices.OperatorEntriesView.as_view(),
    ),
    path("operator/invoices/<str:invoice_id>/finalize", operator_invoices.FinalizeView.as_view()),
    path("operator/invoices/<str:invoice_id>/void", operator_invoices.VoidView.as_view()),
    path("operator/invoices/<str:invoice_id>/credit", operator_invoices.CreditView.as_view()),
    path("operator/invoices/<str:invoice_id>/pay", operator_invoices.PaymentView.as_view()),
    path("operator/invoices/<str:invoice_id>/write_off", operator_invoices.WriteOffView.as_view()),
    path("operator/taxes", operator_invoices.TaxRatesView.as_view()),
    path("operator/taxes/<str:code>", operator_invoices.TaxRateView.as_view()),
    path("operator/sellers", operator_invoices.SellersView.as_view()),
    path("operator/sellers/<str:code>", operator_invoices.SellerView.as_view()),
    path("operator/tenants/<str:tenant_id>/tax", operator_invoices.TenantTaxView.as_view()),
    path("operator/rehearsals", operator_prices.RehearsalsView.as_view()),
    path("operator/corrections", operator_prices.CorrectionsView.as_view()),
    path("operator/margins", operator_prices.MarginsView.as_view()),
    path("operator/differences", operator_differences.DifferencesView.as_view()),
    path("operator/differences/<str:difference_id>", operator_differences.DifferenceView.as_view()),
    path(
        "operator/differences/<str:difference_id>/close",
        operator_differences.CloseDifferenceView.as_view(),
    ),
    path("operator/doubts", operator_differences.DoubtsView.as_view()),
    path("operator/doubts/<str:request_id>", operator_differences.DoubtView.as_view()),
    path("operator/upstreams/<str:upstream_id>/cost_book", operator_prices.CostBookView.as_view()),
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

batch_urlpatterns = [
    path("", batches.BatchesView.as_view()),
    path("/<str:batch_id>", batches.OneBatchView.as_view()),
    path("/<str:batch_id>/results", batches.BatchResultsView.as_view()),
    path("/<str:batch_id>/cancel", batches.CancelBatchView.as_view()),
]

urlpatterns = [
    path("v1/messages/batches", include(batch_urlpatterns)),
    path("api/v1/", include(api)),
    path("webhooks/stripe", stripe_webhook, name="webhook-stripe"),
    path("v1/organizations/", include(organization_urlpatterns)),
]
