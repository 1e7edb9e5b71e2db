"""What roles, states and events are called on pages."""

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext_lazy as _

from accounts.models import ApiKeyStatus, InviteStatus, Role

ROLES: Mapping[str, Any] = {
    Role.OWNER: _("Owner"),
    Role.ADMIN: _("Admin"),
    Role.DEVELOPER: _("Developer"),
    Role.BILLING: _("Billing"),
    Role.VIEWER: _("Viewer"),
}
ROLE_NOTES: Mapping[str, Any] = {
    Role.OWNER: _("Everything, and the other owners"),
    Role.ADMIN: _("Everything but owners"),
    Role.DEVELOPER: _("Keys, logs and usage"),
    Role.BILLING: _("Money and usage"),
    Role.VIEWER: _("Usage alone"),
}
KEY_STATES: Mapping[str, tuple[Any, str]] = {
    ApiKeyStatus.ACTIVE: (_("Active"), "ok"),
    ApiKeyStatus.DISABLED: (_("Disabled"), ""),
    ApiKeyStatus.EXPIRED: (_("Expired"), "warn"),
    ApiKeyStatus.REVOKED: (_("Revoked"), "danger"),
}
ROTATING = (_("Rotating out"), "warn")
INVITE_STATES: Mapping[str, tuple[Any, str]] = {
    InviteStatus.PENDING: (_("Open"), "info"),
    InviteStatus.ACCEPTED: (_("Accepted"), "ok"),
    InviteStatus.EXPIRED: (_("Expired"), "warn"),
    InviteStatus.DELETED: (_("Taken back"), ""),
}
ACTIONS: Mapping[str, Any] = {
    "tenant.created": _("Organization created"),
    "tenant.updated": _("Organization changed"),
    "tenant.suspended": _("Organization suspended"),
    "tenant.resumed": _("Organization resumed"),
    "tenant.closed": _("Organization closed"),
    "tenant.viewing_started": _("An operator began to look at the console"),
    "tenant.viewing_ended": _("An operator stopped looking at the console"),
    "workspace.created": _("Workspace created"),
    "workspace.updated": _("Workspace changed"),
    "workspace.archived": _("Workspace archived"),
    "key.created": _("Key created"),
    "key.updated": _("Key changed"),
    "key.disabled": _("Key disabled"),
    "key.enabled": _("Key enabled"),
    "key.rotated": _("Key rotated"),
    "key.revoked": _("Key revoked"),
    "key.grace_ended": _("Grace of a rotated key ended"),
    "invite.created": _("Member invited"),
    "invite.resent": _("Invitation sent again"),
    "invite.revoked": _("Invitation taken back"),
    "invite.accepted": _("Invitation accepted"),
    "member.added": _("Member added"),
    "member.role_changed": _("Role changed"),
    "member.removed": _("Member removed"),
    "webhook.created": _("Webhook endpoint added"),
    "webhook.updated": _("Webhook endpoint changed"),
    "webhook.rotated": _("Webhook secret rotated"),
    "webhook.replayed": _("Webhook event sent again"),
    "webhook.disabled": _("Webhook endpoint switched off"),
    "webhook.deleted": _("Webhook endpoint removed"),
    "subscription.changed": _("Terms changed"),
    "credit.granted": _("Credit granted"),
    "payment.started": _("Top-up started"),
    "payment.recorded": _("Bank transfer recorded"),
    "payment.refunded": _("Payment given back"),
    "payment.chargeback": _("Payment disputed"),
    "payment.chargeback_returned": _("Dispute won"),
    "code.created": _("Redemption codes created"),
    "code.withdrawn": _("Redemption code revoked"),
    "tenant.erased": _("Personal data erased"),
    "export.requested": _("Data export asked for"),
    "export.fetched": _("Data export fetched"),
    "data.exported": _("Table exported"),
    "platform.settings_changed": _("Platform settings changed"),
    "announcement.created": _("Announcement made"),
    "announcement.ended": _("Announcement ended"),
    "announcement.withdrawn": _("Announcement taken back"),
    "job.started": _("Job started by hand"),
    "dead_letter.retry": _("Dead letter posted again"),
    "dead_letter.discard": _("Dead letter closed"),
    "health.publish": _("Everything published by hand"),
    "health.sweep": _("Missed postings repaired by hand"),
    "mail.retried": _("Mail tried again"),
    "ledger.adjusted": _("Ledger entry by hand"),
    "ledger.reversed": _("Ledger entry undone"),
    "difference.closed": _("Difference closed"),
    "difference.reopened": _("Difference opened again"),
    "usage.accepted": _("Usage in doubt accepted by the operator"),
    "usage.charged": _("Usage in doubt charged"),
}
