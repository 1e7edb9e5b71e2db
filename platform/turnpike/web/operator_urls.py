"""Routes of the operator console. A page that does not exist yet has none."""

from django.urls import URLPattern, path

from billing.console import exports, operator_invoices, operator_rehearsal
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
    tenant_changes,
    tiers,
    upstreams,
    users,
    viewing,
    webhooks,
)
from turnpike.web.operators.dashboard import DashboardPage
from turnpike.web.operators.tenant import TenantPage
from turnpike.web.operators.tenants import TenantsPage

# What is sold, to whom, and who answers.
selling: list[URLPattern] = [
    path("invoices", operator_invoices.InvoicesPage.as_view(), name="operator-invoices"),
    path("invoices/seller", operator_invoices.SellerPage.as_view(), name="operator-seller"),
    path(
        "invoices/<str:invoice_id>",
        operator_invoices.InvoicePage.as_view(),
        name="operator-invoice",
    ),
    path(
        "invoices/<str:invoice_id>/lines/<int:line>",
        operator_invoices.LinePage.as_view(),
        name="operator-invoice-line",
    ),
    path(
        "prices/rehearsal",
        operator_rehearsal.RehearsalPage.as_view(),
        name="operator-rehearsal",
    ),
    path("", DashboardPage.as_view(), name="operator"),
    path("tenants", TenantsPage.as_view(), name="operator-tenants"),
    path("tenants/<str:tenant_id>", TenantPage.as_view(), name="operator-tenant"),
    path(
        "tenants/<str:tenant_id>/view",
        viewing.StartViewingPage.as_view(),
        name="operator-viewing-start",
    ),
    path(
        "tenants/<str:tenant_id>/change/<str:change>",
        tenant_changes.ChangeTenantPage.as_view(),
        name="operator-tenant-change",
    ),
    path("tenants/<str:tenant_id>/<str:tab>", TenantPage.as_view(), name="operator-tenant-tab"),
    path("tiers", tiers.TiersPage.as_view(), name="operator-tiers"),
    path("tiers/<str:code>", tiers.TierPage.as_view(), name="operator-tier"),
    path("tiers/<str:code>/groups", tiers.TierGroupPage.as_view(), name="operator-tier-group"),
    path("models", models.ModelsPage.as_view(), name="operator-models"),
    path("models/<path:model>", models.ModelPage.as_view(), name="operator-model"),
    path("prices", prices.PricesPage.as_view(), name="operator-prices"),
    path("prices/<str:book>/<path:model>", prices.PricePage.as_view(), name="operator-price"),
    path("upstreams", upstreams.UpstreamsPage.as_view(), name="operator-upstreams"),
    path("upstreams/<str:upstream_id>", upstreams.UpstreamPage.as_view(), name="operator-upstream"),
    path(
        "upstreams/<str:upstream_id>/credentials",
        upstreams.CredentialPage.as_view(),
        name="operator-upstream-credential",
    ),
    path("live", live.LivePage.as_view(), name="operator-live"),
    path("live/switch/<str:kind>", live.SwitchPage.as_view(), name="operator-switch"),
    path("users", users.UsersPage.as_view(), name="operator-users"),
    path("users/<str:user_id>", users.UserPage.as_view(), name="operator-user"),
    path("viewing/end", viewing.EndViewingPage.as_view(), name="operator-viewing-end"),
]
# What keeps the platform running.
running: list[URLPattern] = [
    path("health", health.HealthPage.as_view(), name="operator-health"),
    path("jobs", jobs.JobsPage.as_view(), name="operator-jobs"),
    path("jobs/letters/<str:letter_id>", jobs.LetterPage.as_view(), name="operator-letter"),
    path("logs", logs.LogsPage.as_view(), name="operator-logs"),
    path("logs/<str:request_id>", logs.LogPage.as_view(), name="operator-log"),
    path("audit", audit.AuditPage.as_view(), name="operator-audit"),
    path("ledger", ledger.LedgerPage.as_view(), name="operator-ledger"),
    path("ledger/reconcile", ledger.ReconcilePage.as_view(), name="operator-reconcile"),
    path("ledger/<str:txn_id>/undo", ledger.ReversalPage.as_view(), name="operator-reversal"),
    path("differences", differences.DifferencesPage.as_view(), name="operator-differences"),
    path(
        "differences/<str:reconciliationitem_id>",
        differences.DifferencePage.as_view(),
        name="operator-difference",
    ),
    path("doubts", doubts.DoubtsPage.as_view(), name="operator-doubts"),
    path("doubts/<str:request_id>", doubts.DoubtPage.as_view(), name="operator-doubt"),
    path("exports/<str:table>", exports.OperatorExportPage.as_view(), name="operator-table-export"),
    path("announcements", announcements.AnnouncementsPage.as_view(), name="operator-announcements"),
    path(
        "announcements/<str:note_id>",
        announcements.AnnouncementPage.as_view(),
        name="operator-announcement",
    ),
    path("webhooks", webhooks.WebhooksPage.as_view(), name="operator-webhooks"),
    path("mail", mail.MailPage.as_view(), name="operator-mail"),
    path("mail/<str:name>", mail.MessagePage.as_view(), name="operator-message"),
    path("settings", platform_settings.SettingsPage.as_view(), name="operator-settings"),
]

operator = [*selling, *running]
