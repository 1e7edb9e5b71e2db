"""close_account, erase_due: how an account ends, and when what is personal in it goes.

Closing holds from the next request. Ledger, invoices and usage stay: they name numbers, not people.
After the time that the platform keeps closed accounts, members, invitations, addresses, mail,
exports and the audit log go, and so does every person who belongs nowhere else.
"""

import logging
from datetime import timedelta

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.sessions.models import Session
from django.utils import translation
from django.utils.translation import gettext as _

from accounts.models import (
    DataExport,
    Invite,
    Mail,
    Member,
    Role,
    Tenant,
    TenantClosing,
    User,
)
from accounts.services.audit import cut_audit, record_audit
from accounts.services.keys import revoke_keys_of
from accounts.services.mail import Letter, post_mail
from accounts.services.platform_settings import KEEP_CLOSED_DAYS, read_setting
from accounts.services.policy import lock_tenant
from accounts.services.tenants import close_tenant
from turnpike.control.caller import SYSTEM, Caller
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids
from turnpike.kernel.errors import InvalidInput

logger = logging.getLogger(__name__)

ERASED_AT_ONCE_MAX = 50
# The database cuts nothing that is younger than a week.
AUDIT_KEPT_MIN = timedelta(days=8)
ERASED_DOMAIN = "erased.invalid"


def close_account(*, caller: Caller, tenant: Tenant, typed_name: str, reason: str) -> TenantClosing:
    """Close a tenant at its owner's word: typed name, keys revoked, invitations void, date set."""
    if typed_name.strip() != tenant.name:
        raise InvalidInput("The name that was typed is another one.", field="typed_name")
    row = lock_tenant(tenant.pk)
    revoke_keys_of(caller=caller, tenant=row.pk)
    now = clock.utc_now()
    Invite.objects.filter(tenant=row, accepted_at=None, revoked_at=None).update(revoked_at=now)
    close_tenant(caller=caller, tenant=row, reason=reason)
    erase_at = now + timedelta(days=read_setting(KEEP_CLOSED_DAYS))
    closing = TenantClosing.objects.create(
        tenant=row, closed_by=caller.actor, reason=reason, erase_at=erase_at
    )
    _tell_owners(row, closing)
    return closing


def erase_due() -> int:
    """Erase what is personal in accounts whose time is over; returns how many accounts."""
    with platform_scope("accounts.erase_due"):
        due = TenantClosing.objects.filter(erased_at=None, erase_at__lte=clock.utc_now())
        numbers = list(due.order_by("erase_at").values_list("pk", flat=True)[:ERASED_AT_ONCE_MAX])
    for number in numbers:
        _erase(number)
    return len(numbers)


def erase_person(user: User) -> None:
    """Leave of a person the number that records name, and nothing that says who it was."""
    Authenticator.objects.filter(user=user).delete()
    EmailAddress.objects.filter(user=user).delete()
    keys = UserSession.objects.filter(user=user).values_list("session_key", flat=True)
    Session.objects.filter(session_key__in=list(keys)).delete()
    UserSession.objects.filter(user=user).delete()
    user.email = f"{user.public_id.lower()}-{user.pk}@{ERASED_DOMAIN}"
    user.name = user.language = ""
    user.is_active = False
    user.set_unusable_password()
    user.save(update_fields=["email", "name", "language", "is_active", "password"])


def _tell_owners(tenant: Tenant, closing: TenantClosing) -> None:
    owners = Member.objects.filter(tenant=tenant, role=Role.OWNER).select_related("user")
    for member in owners.order_by("pk"):
        chosen = member.user.language or translation.get_language() or settings.LANGUAGE_CODE
        with translation.override(chosen):
            post_mail(
                key=f"closed:{tenant.public_id}:{member.user.public_id}",
                kind="closing",
                to=member.user.email,
                letter=_farewell(tenant, closing),
                tenant=tenant.pk,
                language=chosen,
            )


def _farewell(tenant: Tenant, closing: TenantClosing) -> Letter:
    return Letter(
        subject=_("%(name)s is closed") % {"name": tenant.name},
        paragraphs=(
            _("The organization was closed, and its keys work no more."),
            _(
                "Names, addresses, invitations and the audit log are erased on %(day)s."
                " Invoices and the ledger stay, as the law asks."
            )
            % {"day": closing.erase_at.strftime("%Y-%m-%d")},
        ),
    )


def _erase(number: int) -> None:
    with platform_scope("accounts.erase"):
        tenant = lock_tenant(number)
        closing = TenantClosing.objects.select_for_update().get(pk=number)
        if closing.erased_at is not None:
            return
        people = [row.user for row in Member.objects.filter(tenant=tenant).select_related("user")]
        Member.objects.filter(tenant=tenant).delete()
        for user in people:
            if not user.is_staff and not Member.objects.filter(user=user).exists():
                erase_person(user)
        for invite in Invite.objects.filter(tenant=tenant):
            invite.email = f"{ids.public_id(ids.INVITE, invite.uuid).lower()}@{ERASED_DOMAIN}"
            invite.save(update_fields=["email"])
        Mail.objects.filter(tenant=tenant).delete()
        DataExport.objects.filter(tenant=tenant).delete()
        TenantClosing.objects.filter(pk=number).update(erased_at=clock.utc_now(), reason="")
    cut_audit(tenant=number, before=min(closing.created_at, clock.utc_now() - AUDIT_KEPT_MIN))
    with platform_scope("accounts.erase"):
        record_audit(
            actor=SYSTEM,
            tenant=None,
            action="tenant.erased",
            target=tenant.public_id,
            after={"people": len(people)},
            reason="its time was over",
        )
    logger.info("tenant.erased", extra={"tenant": number, "people": len(people)})
