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
from turnpike.web.routing import routes
from turnpike.web.status import StatusPage

console = routes(
    ("", OverviewPage, "console"),
    ("start", StartPage, "console-start"),
    ("playground", PlaygroundPage, "console-playground"),
    ("playground/stream", PlaygroundStream, "console-playground-stream"),
    ("playground/receipts/<str:request_id>", PlaygroundReceipt, "console-playground-receipt"),
    ("find", FindPage, "console-find"),
    ("docs", docs_pages.DocsPage, "console-docs"),
    ("docs/<slug:slug>", docs_pages.DocPage, "console-doc"),
    ("models", models.ModelsPage, "console-models"),
    ("keys", KeysPage, "console-keys"),
    ("keys/<str:key_id>", KeyPage, "console-key"),
    ("keys/<str:key_id>/rotate", RotateKeyPage, "console-key-rotate"),
    ("workspaces", workspaces.WorkspacesPage, "console-workspaces"),
    ("workspaces/<str:workspace_id>", workspaces.WorkspacePage, "console-workspace"),
    ("limits", limits.LimitsPage, "console-limits"),
    ("usage", usage.UsagePage, "console-usage"),
    ("logs", logs.LogsPage, "console-logs"),
    ("logs/<str:request_id>", logs.LogPage, "console-log"),
    ("billing", money.BillingPage, "console-billing"),
    ("billing/top_up", paying.TopUpPage, "console-billing-top_up"),
    ("billing/reload", paying.ReloadPage, "console-billing-reload"),
    ("billing/redeem", paying.RedeemPage, "console-billing-redeem"),
    ("billing/details", invoices.DetailsPage, "console-billing-details"),
    ("billing/requests/<str:request_id>", invoices.EntriesPage, "console-entries"),
    ("billing/invoices/<str:invoice_id>", invoices.InvoicePage, "console-invoice"),
    ("billing/invoices/<str:invoice_id>/pay", paying.PayInvoicePage, "console-invoice-pay"),
    ("billing/invoices/<str:invoice_id>/pdf", invoices.InvoiceFilePage, "console-invoice-pdf"),
    ("billing/invoices/<str:invoice_id>/print", invoices.PrintPage, "console-invoice-print"),
    (
        "billing/invoices/<str:invoice_id>/lines/<int:line>",
        invoices.LinePage,
        "console-invoice-line",
    ),
    ("exports/ledger", exports.LedgerExportPage, "console-ledger-export"),
    ("exports/usage", exports.UsageExportPage, "console-usage-export"),
    ("exports/invoices", exports.InvoicesExportPage, "console-invoices-export"),
    ("members", members.MembersPage, "console-members"),
    ("members/<str:user_id>", members.MemberPage, "console-member"),
    ("invites/<str:invite_id>", members.InvitePage, "console-invite"),
    ("tenant", members.ChooseTenant, "console-tenant"),
    ("webhooks", webhooks.WebhooksPage, "console-webhooks"),
    ("webhooks/<str:webhookendpoint_id>", webhooks.WebhookPage, "console-webhook"),
    (
        "webhooks/<str:webhookendpoint_id>/rotate",
        webhooks.RotateWebhookPage,
        "console-webhook-rotate",
    ),
    ("webhooks/deliveries/<str:webhookdelivery_id>", webhooks.DeliveryPage, "console-delivery"),
    ("audit", audit.AuditPage, "console-audit"),
    ("data", data.DataPage, "console-data"),
    ("data/close", data.ClosingPage, "console-close"),
    ("data/<str:export_id>", data.ExportPage, "console-export"),
    ("status", StatusPage, "console-status"),
    ("settings", organization.SettingsPage, "console-settings"),
    ("mail", mail_choices.MailChoicesPage, "console-mail"),
)

invitation = path("accounts/invite", invitations.InvitationPage.as_view(), name="invitation")

# For everybody, without a session: they say nothing of any organization.
public = [
    path("docs/<slug:slug>.md", docs_pages.markdown, name="docs-markdown"),
    path("llms.txt", docs_pages.llms, name="llms"),
    path("llms-full.txt", docs_pages.llms_full, name="llms-full"),
]
