"""Routes of the tenant console. A page that does not exist yet has none."""

from django.urls import path

from accounts.console import (
    audit,
    data,
    invitations,
    mail_choices,
    members,
    organization,
    webhooks,
    workspaces,
)
from billing.console import exports, invoices, limits, logs, models, money, paying, usage
from turnpike.web import docs_pages
from turnpike.web.find import FindPage
from turnpike.web.getting_started import StartPage
from turnpike.web.key_page import KeyPage
from turnpike.web.keys import KeysPage, RotateKeyPage
from turnpike.web.overview import OverviewPage
from turnpike.web.playground import PlaygroundPage, PlaygroundReceipt, PlaygroundStream
from turnpike.web.status import StatusPage

console = [
    path("", OverviewPage.as_view(), name="console"),
    path("start", StartPage.as_view(), name="console-start"),
    path("playground", PlaygroundPage.as_view(), name="console-playground"),
    path("playground/stream", PlaygroundStream.as_view(), name="console-playground-stream"),
    path(
        "playground/receipts/<str:request_id>",
        PlaygroundReceipt.as_view(),
        name="console-playground-receipt",
    ),
    path("find", FindPage.as_view(), name="console-find"),
    path("docs", docs_pages.DocsPage.as_view(), name="console-docs"),
    path("docs/<slug:slug>", docs_pages.DocPage.as_view(), name="console-doc"),
    path("models", models.ModelsPage.as_view(), name="console-models"),
    path("keys", KeysPage.as_view(), name="console-keys"),
    path("keys/<str:key_id>", KeyPage.as_view(), name="console-key"),
    path("keys/<str:key_id>/rotate", RotateKeyPage.as_view(), name="console-key-rotate"),
    path("workspaces", workspaces.WorkspacesPage.as_view(), name="console-workspaces"),
    path(
        "workspaces/<str:workspace_id>",
        workspaces.WorkspacePage.as_view(),
        name="console-workspace",
    ),
    path("limits", limits.LimitsPage.as_view(), name="console-limits"),
    path("usage", usage.UsagePage.as_view(), name="console-usage"),
    path("logs", logs.LogsPage.as_view(), name="console-logs"),
    path("logs/<str:request_id>", logs.LogPage.as_view(), name="console-log"),
    path("billing", money.BillingPage.as_view(), name="console-billing"),
    path("billing/top_up", paying.TopUpPage.as_view(), name="console-billing-top_up"),
    path("billing/reload", paying.ReloadPage.as_view(), name="console-billing-reload"),
    path("billing/redeem", paying.RedeemPage.as_view(), name="console-billing-redeem"),
    path("billing/details", invoices.DetailsPage.as_view(), name="console-billing-details"),
    path(
        "billing/requests/<str:request_id>", invoices.EntriesPage.as_view(), name="console-entries"
    ),
    path(
        "billing/invoices/<str:invoice_id>", invoices.InvoicePage.as_view(), name="console-invoice"
    ),
    path(
        "billing/invoices/<str:invoice_id>/pdf",
        invoices.InvoiceFilePage.as_view(),
        name="console-invoice-pdf",
    ),
    path(
        "billing/invoices/<str:invoice_id>/print",
        invoices.PrintPage.as_view(),
        name="console-invoice-print",
    ),
    path(
        "billing/invoices/<str:invoice_id>/lines/<int:line>",
        invoices.LinePage.as_view(),
        name="console-invoice-line",
    ),
    path("exports/ledger", exports.LedgerExportPage.as_view(), name="console-ledger-export"),
    path("exports/usage", exports.UsageExportPage.as_view(), name="console-usage-export"),
    path("exports/invoices", exports.InvoicesExportPage.as_view(), name="console-invoices-export"),
    path("members", members.MembersPage.as_view(), name="console-members"),
    path("members/<str:user_id>", members.MemberPage.as_view(), name="console-member"),
    path("invites/<str:invite_id>", members.InvitePage.as_view(), name="console-invite"),
    path("tenant", members.ChooseTenant.as_view(), name="console-tenant"),
    path("webhooks", webhooks.WebhooksPage.as_view(), name="console-webhooks"),
    path(
        "webhooks/<str:webhookendpoint_id>",
        webhooks.WebhookPage.as_view(),
        name="console-webhook",
    ),
    path(
        "webhooks/<str:webhookendpoint_id>/rotate",
        webhooks.RotateWebhookPage.as_view(),
        name="console-webhook-rotate",
    ),
    path(
        "webhooks/deliveries/<str:webhookdelivery_id>",
        webhooks.DeliveryPage.as_view(),
        name="console-delivery",
    ),
    path("audit", audit.AuditPage.as_view(), name="console-audit"),
    path("data", data.DataPage.as_view(), name="console-data"),
    path("data/close", data.ClosingPage.as_view(), name="console-close"),
    path("data/<str:export_id>", data.ExportPage.as_view(), name="console-export"),
    path("status", StatusPage.as_view(), name="console-status"),
    path("settings", organization.SettingsPage.as_view(), name="console-settings"),
    path("mail", mail_choices.MailChoicesPage.as_view(), name="console-mail"),
]

invitation = path("accounts/invite", invitations.InvitationPage.as_view(), name="invitation")

# For everybody, without a session: they say nothing of any organization.
public = [
    path("docs/<slug:slug>.md", docs_pages.markdown, name="docs-markdown"),
    path("llms.txt", docs_pages.llms, name="llms"),
    path("llms-full.txt", docs_pages.llms_full, name="llms-full"),
]
