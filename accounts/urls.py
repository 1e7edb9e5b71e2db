"""Routes of accounts: our own API, and what has the Admin API's shape."""

from django.urls import include, path

from accounts.api import (
    admin_keys,
    admin_people,
    admin_workspaces,
    audit,
    keys,
    members,
    tenants,
    webhooks,
    workspaces,
)

api = [
    path("tenant", tenants.OwnTenantView.as_view()),
    path("workspaces", workspaces.WorkspacesView.as_view()),
    path("workspaces/<str:workspace_id>", workspaces.WorkspaceView.as_view()),
    path("workspaces/<str:workspace_id>/archive", workspaces.ArchiveWorkspaceView.as_view()),
    path("members", members.MembersView.as_view()),
    path("members/<str:user_id>", members.MemberView.as_view()),
    path("invites", members.InvitesView.as_view()),
    path("invites/accept", members.AcceptInviteView.as_view()),
    path("invites/<str:invite_id>", members.InviteView.as_view()),
    path("invites/<str:invite_id>/resend", members.ResendInviteView.as_view()),
    path("keys", keys.KeysView.as_view()),
    path("keys/<str:key_id>", keys.KeyView.as_view()),
    path("keys/<str:key_id>/disable", keys.DisableKeyView.as_view()),
    path("keys/<str:key_id>/enable", keys.EnableKeyView.as_view()),
    path("keys/<str:key_id>/rotate", keys.RotateKeyView.as_view()),
    path("keys/<str:key_id>/revoke", keys.RevokeKeyView.as_view()),
    path("webhooks", webhooks.WebhooksView.as_view()),
    path("webhooks/deliveries/<str:delivery_id>", webhooks.DeliveryView.as_view()),
    path("webhooks/deliveries/<str:delivery_id>/replay", webhooks.ReplayDeliveryView.as_view()),
    path("webhooks/<str:webhook_id>", webhooks.WebhookView.as_view()),
    path("webhooks/<str:webhook_id>/rotate", webhooks.RotateWebhookView.as_view()),
    path("webhooks/<str:webhook_id>/test", webhooks.TestWebhookView.as_view()),
    path("webhooks/<str:webhook_id>/deliveries", webhooks.DeliveriesView.as_view()),
    path("audit", audit.AuditView.as_view()),
    path("operator/tenants", tenants.OperatorTenantsView.as_view()),
    path("operator/tenants/<str:tenant_id>", tenants.OperatorTenantView.as_view()),
    path("operator/tenants/<str:tenant_id>/suspend", tenants.SuspendTenantView.as_view()),
    path("operator/tenants/<str:tenant_id>/resume", tenants.ResumeTenantView.as_view()),
    path("operator/tenants/<str:tenant_id>/close", tenants.CloseTenantView.as_view()),
]

organization = [
    path("me", admin_keys.MeView.as_view()),
    path("api_keys", admin_keys.ApiKeysView.as_view()),
    path("api_keys/<str:api_key_id>", admin_keys.OneApiKeyView.as_view()),
    path("workspaces", admin_workspaces.AdminWorkspacesView.as_view()),
    path("workspaces/<str:workspace_id>", admin_workspaces.AdminWorkspaceView.as_view()),
    path(
        "workspaces/<str:workspace_id>/archive",
        admin_workspaces.ArchiveAdminWorkspaceView.as_view(),
    ),
    path("workspaces/<str:workspace_id>/members", admin_workspaces.WorkspaceMembersView.as_view()),
    path(
        "workspaces/<str:workspace_id>/members/<str:user_id>",
        admin_workspaces.WorkspaceMemberView.as_view(),
    ),
    path("users", admin_people.UsersView.as_view()),
    path("users/<str:user_id>", admin_people.OneUserView.as_view()),
    path("invites", admin_people.AdminInvitesView.as_view()),
    path("invites/<str:invite_id>", admin_people.AdminInviteView.as_view()),
]

urlpatterns = [path("api/v1/", include(api)), path("v1/organizations/", include(organization))]
