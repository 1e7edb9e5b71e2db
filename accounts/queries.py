"""Reads that belong to no caller: find_* may return None, list_* returns a queryset."""

import hmac
from collections.abc import Collection, Mapping
from datetime import datetime

from django.db.models import Count, Q, QuerySet

from accounts.models import (
    ApiKey,
    ApiKeyStatus,
    Invite,
    InviteStatus,
    Member,
    Tenant,
    TenantStatus,
    Workspace,
)
from turnpike.kernel import hashing

GRACE_ENDED_AT_ONCE_MAX = 500


def find_key_by_secret(secret: str, *, peppers: Mapping[str, bytes]) -> ApiKey | None:
    """The key that a secret belongs to, in force or not; garbage is refused without a look-up."""
    if not hashing.is_well_formed(secret):
        return None
    digests = hashing.digest_candidates(secret, peppers=peppers)
    for key in ApiKey.objects.filter(digest__in=digests).select_related("tenant", "workspace"):
        if any(hmac.compare_digest(key.digest, digest) for digest in digests):
            return key
    return None


def find_invite_by_hash(token_hash: str) -> Invite | None:
    """The invite that a link's token belongs to, open or not."""
    return Invite.objects.filter(token_hash=token_hash).first()


def find_tenant_by_name(name: str) -> Tenant | None:
    """The oldest tenant of that name that is not closed."""
    rows = Tenant.objects.filter(name=name).exclude(status=TenantStatus.CLOSED)
    return rows.order_by("pk").first()


def get_default_workspace(tenant: Tenant) -> Workspace:
    """The workspace that every tenant has."""
    return Workspace.objects.get(tenant=tenant, is_default=True)


def list_memberships(user: int) -> QuerySet[Member]:
    """Where a person belongs, oldest first; closed tenants are left out."""
    rows = Member.objects.filter(user_id=user).exclude(tenant__status=TenantStatus.CLOSED)
    return rows.select_related("tenant").order_by("pk")


def list_live_keys(tenant: int, now: datetime) -> QuerySet[ApiKey]:
    """Keys that count against a tenant's maximum: neither revoked nor ended."""
    rows = ApiKey.objects.filter(tenant_id=tenant, revoked_at__isnull=True)
    rows = rows.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=now))
    return rows.filter(Q(grace_ends_at__isnull=True) | Q(grace_ends_at__gt=now))


def keys_of_status(
    rows: QuerySet[ApiKey], status: ApiKeyStatus, *, at: datetime
) -> QuerySet[ApiKey]:
    """Of these keys those whose `status_at` an instant is this one."""
    if status == ApiKeyStatus.REVOKED:
        return rows.filter(revoked_at__isnull=False)
    rows = rows.filter(revoked_at__isnull=True)
    has_ended = Q(expires_at__lte=at) | Q(grace_ends_at__lte=at)
    if status == ApiKeyStatus.EXPIRED:
        return rows.filter(has_ended)
    is_disabled = status == ApiKeyStatus.DISABLED
    return rows.exclude(has_ended).filter(disabled_at__isnull=not is_disabled)


def invites_of_status(
    rows: QuerySet[Invite], statuses: Collection[InviteStatus], *, at: datetime
) -> QuerySet[Invite]:
    """Of these invites those whose `status_at` an instant is one of these."""
    is_open = Q(accepted_at__isnull=True, revoked_at__isnull=True)
    conditions = {
        InviteStatus.ACCEPTED: Q(accepted_at__isnull=False),
        InviteStatus.DELETED: Q(revoked_at__isnull=False),
        InviteStatus.PENDING: is_open & Q(expires_at__gt=at),
        InviteStatus.EXPIRED: is_open & Q(expires_at__lte=at),
    }
    wanted = Q(pk__in=[])
    for status in statuses:
        wanted |= conditions[status]
    return rows.filter(wanted)


def count_keys_by_maker(tenant: int) -> dict[int, int]:
    """How many keys that are not revoked each person made, by the person's number."""
    rows = ApiKey.objects.filter(
        tenant_id=tenant, revoked_at__isnull=True, created_by__isnull=False
    )
    counted = rows.order_by().values_list("created_by_id").annotate(Count("pk"))
    return {int(user or 0): number for user, number in counted}


def list_ended_graces(now: datetime) -> QuerySet[ApiKey]:
    """Replaced keys whose grace is over and that nobody has revoked yet."""
    rows = ApiKey.objects.filter(grace_ends_at__lte=now, revoked_at__isnull=True)
    return rows.order_by("pk")[:GRACE_ENDED_AT_ONCE_MAX]
