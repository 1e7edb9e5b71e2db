"""Routes of the operator console. A page that does not exist yet has none."""

from billing.console import (
    exports,
    operator_codes,
    operator_invoices,
    operator_payments,
    operator_rehearsal,
)
from turnpike.web.operators import (
    announcements,
    audit,
    differences,
    doubts,
    health,
    jobs,
    ledger,
    live,
    logs,
    mail,
    models,
    platform_settings,
    prices,
    tiers,
    upstreams,
    users,
    viewing,
    webhooks,
)
from turnpike.web.operators.dashboard import DashboardPage
from turnpike.web.operators.tenant import TenantPage
from turnpike.web.operators.tenant_changes import ChangeTenantPage
from turnpike.web.operators.tenants import TenantsPage
from turnpike.web.routing import routes

# What is sold, to whom, and who answers.
selling = routes(
    ("", DashboardPage, "operator"),
    ("tenants", TenantsPage, "operator-tenants"),
    ("tenants/<str:tenant_id>", TenantPage, "operator-tenant"),
    ("tenants/<str:tenant_id>/view", viewing.StartViewingPage, "operator-viewing-start"),
    ("tenants/<str:tenant_id>/change/<str:change>", ChangeTenantPage, "operator-tenant-change"),
    ("tenants/<str:tenant_id>/<str:tab>", TenantPage, "operator-tenant-tab"),
    ("tiers", tiers.TiersPage, "operator-tiers"),
    ("tiers/<str:code>", tiers.TierPage, "operator-tier"),
    ("tiers/<str:code>/groups", tiers.TierGroupPage, "operator-tier-group"),
    ("models", models.ModelsPage, "operator-models"),
    ("models/<path:model>", models.ModelPage, "operator-model"),
    ("prices", prices.PricesPage, "operator-prices"),
    ("prices/rehearsal", operator_rehearsal.RehearsalPage, "operator-rehearsal"),
    ("prices/<str:book>/<path:model>", prices.PricePage, "operator-price"),
    ("upstreams", upstreams.UpstreamsPage, "operator-upstreams"),
    ("upstreams/<str:upstream_id>", upstreams.UpstreamPage, "operator-upstream"),
    (
        "upstreams/<str:upstream_id>/credentials",
        upstreams.CredentialPage,
        "operator-upstream-credential",
    ),
    ("live", live.LivePage, "operator-live"),
    ("live/switch/<str:kind>", live.SwitchPage, "operator-switch"),
    ("users", users.UsersPage, "operator-users"),
    ("users/<str:user_id>", users.UserPage, "operator-user"),
    ("viewing/end", viewing.EndViewingPage, "operator-viewing-end"),
)
# What was paid, asked for and given.
money = routes(
    ("ledger", ledger.LedgerPage, "operator-ledger"),
    ("ledger/reconcile", ledger.ReconcilePage, "operator-reconcile"),
    ("ledger/<str:txn_id>/undo", ledger.ReversalPage, "operator-reversal"),
    ("differences", differences.DifferencesPage, "operator-differences"),
    (
        "differences/<str:reconciliationitem_id>",
        differences.DifferencePage,
        "operator-difference",
    ),
    ("doubts", doubts.DoubtsPage, "operator-doubts"),
    ("doubts/<str:request_id>", doubts.DoubtPage, "operator-doubt"),
    ("exports/<str:table>", exports.OperatorExportPage, "operator-table-export"),
    ("invoices", operator_invoices.InvoicesPage, "operator-invoices"),
    ("invoices/seller", operator_invoices.SellerPage, "operator-seller"),
    ("invoices/<str:invoice_id>", operator_invoices.InvoicePage, "operator-invoice"),
    (
        "invoices/<str:invoice_id>/lines/<int:line>",
        operator_invoices.LinePage,
        "operator-invoice-line",
    ),
    ("payments", operator_payments.PaymentsPage, "operator-payments"),
    ("payments/refunds", operator_payments.RefundsPage, "operator-refunds"),
    ("payments/<str:payment_id>", operator_payments.PaymentPage, "operator-payment"),
    ("codes", operator_codes.CodesPage, "operator-codes"),
    ("codes/<str:code_id>", operator_codes.CodePage, "operator-code"),
    ("codes/batches/<str:batch_id>", operator_codes.BatchPage, "operator-code-batch"),
)
# What keeps the platform running.
running = routes(
    ("health", health.HealthPage, "operator-health"),
    ("jobs", jobs.JobsPage, "operator-jobs"),
    ("jobs/letters/<str:letter_id>", jobs.LetterPage, "operator-letter"),
    ("logs", logs.LogsPage, "operator-logs"),
    ("logs/<str:request_id>", logs.LogPage, "operator-log"),
    ("audit", audit.AuditPage, "operator-audit"),
    ("announcements", announcements.AnnouncementsPage, "operator-announcements"),
    ("announcements/<str:note_id>", announcements.AnnouncementPage, "operator-announcement"),
    ("webhooks", webhooks.WebhooksPage, "operator-webhooks"),
    ("mail", mail.MailPage, "operator-mail"),
    ("mail/<str:name>", mail.MessagePage, "operator-message"),
    ("settings", platform_settings.SettingsPage, "operator-settings"),
)

operator = [*selling, *money, *running]
