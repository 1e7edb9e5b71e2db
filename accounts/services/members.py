"""invite_member, resend_invite, revoke_invite, accept_invite, change_role, remove_member."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta

from django.contrib.auth.password_validation import validate_password
from django.core import signing
from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from accounts.access import check_power, check_role
from accounts.models import (
    EMAIL_LENGTH_MAX,
    Invite,
    InviteStatus,
    Member,
    Role,
    Tenant,
    TenantStatus,
    User,
)
from accounts.queries import find_invite_by_hash
from accounts.services import webhook_events
from accounts.services.audit import record_audit
from accounts.services.invite_letters import mail_invite
from accounts.services.keys import revoke_keys_of
from accounts.services.policy import lock_tenant
from accounts.services.settings import check_name
from turnpike.control.caller import Caller, Power
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids
from turnpike.kernel.errors import Conflict, InvalidInput, NotAuthenticated, NotFound

INVITE_LASTS = timedelta(days=7)
MEMBERS_MAX = 500
PENDING_INVITES_MAX = 100
TOKEN_LENGTH_MAX = 200
_SIGNER_SALT = "accounts.invite"
_NOT_OPEN = "This invitation does not exist or is no longer open."


@dataclass(frozen=True, slots=True, kw_only=True)
class SentInvite:
    """An invite and the token of its link, which nobody can read again."""

    invite: Invite
    token: str

    def __repr__(self) -> str:
        return f"SentInvite({self.invite.public_id})"


def invite_member(*, caller: Caller, tenant: Tenant, email: str, role: str) -> SentInvite:
    """Invite an address; an older invite of the same address that has expired is replaced."""
    address = _check_email(email)
    check_role(caller, role)
    lock_tenant(tenant.pk)
    if Member.objects.filter(tenant=tenant, user__email=address).exists():
        raise Conflict("This person is a member already.", error_code="already_member")
    _make_room(tenant, address)
    token, token_hash = _new_token()
    invite = Invite.objects.create(
        tenant=tenant,
        email=address,
        role=role,
        token_hash=token_hash,
        invited_by_id=caller.user,
        expires_at=clock.utc_now() + INVITE_LASTS,
    )
    _record(caller, invite, "invite.created", after={"email": address, "role": role})
    mail_invite(invite, token=token)
    return SentInvite(invite=invite, token=token)


def resend_invite(*, caller: Caller, invite: Invite) -> SentInvite:
    """Make a new link for an invite; the old link stops working, the time starts again."""
    row = _lock_open(invite)
    check_role(caller, row.role)
    token, row.token_hash = _new_token()
    row.expires_at = clock.utc_now() + INVITE_LASTS
    row.save(update_fields=["token_hash", "expires_at"])
    _record(caller, row, "invite.resent", after={"expires_at": clock.rfc3339(row.expires_at)})
    mail_invite(row, token=token)
    return SentInvite(invite=row, token=token)


def revoke_invite(*, caller: Caller, invite: Invite) -> Invite:
    """Take an invite back: its link stops working."""
    row = _lock_open(invite)
    row.revoked_at = clock.utc_now()
    row.save(update_fields=["revoked_at"])
    _record(caller, row, "invite.revoked")
    return row


def accept_invite(
    *, caller: Caller, token: str, user: User | None, name: str = "", password: str = ""
) -> Member:
    """Make the holder of a link a member, once.

    `user` is who is signed in, or None. An address that has an account must be signed in with it;
    one that has none gets an account with the given name and password.
    """
    with platform_scope("accounts.accept_invite"):
        tenant, invite = _lock_pending(token)
        person = _person_of(invite, user, name=name, password=password)
        if Member.objects.filter(tenant=tenant, user=person).exists():
            raise Conflict("You are a member already.")
        if Member.objects.filter(tenant=tenant).count() >= MEMBERS_MAX:
            raise Conflict(f"A tenant has at most {MEMBERS_MAX} members.")
        member = Member.objects.create(tenant=tenant, user=person, role=invite.role)
        invite.accepted_at = clock.utc_now()
        invite.save(update_fields=["accepted_at"])
        acting = Caller(
            actor=person.public_id,
            tenant=tenant.pk,
            address=caller.address,
            request_id=caller.request_id,
        )
        _record(acting, invite, "invite.accepted", after={"user": person.public_id})
        _tell(webhook_events.MEMBER_JOINED, member, acting)
    return member


def add_member(*, caller: Caller, tenant: Tenant, user: User, role: str) -> Member:
    """Make a person a member without an invitation: for operators and set-up."""
    check_role(caller, role)
    lock_tenant(tenant.pk)
    if Member.objects.filter(tenant=tenant, user=user).exists():
        raise Conflict("This person is a member already.", error_code="already_member")
    member = Member.objects.create(tenant=tenant, user=user, role=role)
    _record_member(caller, member, "member.added", after={"role": role})
    _tell(webhook_events.MEMBER_JOINED, member, caller)
    return member


def change_role(
    *, caller: Caller, member: Member, role: str, is_revoking_keys: bool = False
) -> Member:
    """Give a member another role. The last owner stays one; keys stay unless they shall go."""
    row = _lock_member(member)
    check_role(caller, row.role)
    check_role(caller, role)
    if role != Role.OWNER:
        _check_not_last_owner(row)
    before, row.role = row.role, role
    row.save(update_fields=["role"])
    _record_member(
        caller, row, "member.role_changed", before={"role": before}, after={"role": role}
    )
    if is_revoking_keys:
        _revoke_keys(caller, row)
    return row


def remove_member(*, caller: Caller, member: Member, is_revoking_keys: bool = True) -> int:
    """End a membership, and the keys that the person made unless programs are to keep them.

    The last owner stays. Returns how many keys were revoked.
    """
    row = _lock_member(member)
    if row.user_id != caller.user:
        check_role(caller, row.role)
    _check_not_last_owner(row)
    _record_member(caller, row, "member.removed", before={"role": row.role})
    _tell(webhook_events.MEMBER_REMOVED, row, caller)
    revoked = _revoke_keys(caller, row) if is_revoking_keys else 0
    row.delete()
    return revoked


def _tell(kind: str, member: Member, caller: Caller) -> None:
    user = member.user
    webhook_events.emit_event(
        tenant=member.tenant_id,
        kind=kind,
        data={
            "user": user.public_id,
            "email": user.email,
            "role": member.role,
            "actor": caller.actor,
        },
    )


def _revoke_keys(caller: Caller, member: Member) -> int:
    if member.user_id != caller.user:
        check_power(caller, Power.KEYS_WRITE)
    return revoke_keys_of(caller=caller, tenant=member.tenant_id, user=member.user_id)


def _lock_member(member: Member) -> Member:
    # The tenant's lock makes two owners who demote each other take turns.
    lock_tenant(member.tenant_id)
    row = Member.objects.select_for_update(of=("self",)).select_related("user")
    found = row.filter(pk=member.pk).first()
    if found is None:
        raise NotFound("There is no such member.")
    return found


def _check_not_last_owner(member: Member) -> None:
    if member.role != Role.OWNER:
        return
    owners = Member.objects.filter(tenant_id=member.tenant_id, role=Role.OWNER)
    if not owners.exclude(pk=member.pk).exists():
        raise Conflict("A tenant keeps at least one owner.", error_code="cannot_remove_last_member")


def _lock_open(invite: Invite) -> Invite:
    lock_tenant(invite.tenant_id)
    row = Invite.objects.select_for_update().get(pk=invite.pk)
    if row.accepted_at is not None or row.revoked_at is not None:
        raise Conflict(f"The invite is {row.status_at(clock.utc_now())}.")
    return row


def _lock_pending(token: str) -> tuple[Tenant, Invite]:
    found = find_invite_by_hash(_hash_token(token))
    if found is None:
        raise NotFound(_NOT_OPEN)
    # The tenant first, as everywhere; then what became of the invite in the meantime.
    tenant = lock_tenant(found.tenant_id)
    invite = Invite.objects.select_for_update().get(pk=found.pk)
    is_same = invite.token_hash == found.token_hash
    is_pending = invite.status_at(clock.utc_now()) == InviteStatus.PENDING
    if not is_same or not is_pending or tenant.status == TenantStatus.CLOSED:
        raise NotFound(_NOT_OPEN)
    return tenant, invite


def _make_room(tenant: Tenant, address: str) -> None:
    now = clock.utc_now()
    opened = Invite.objects.filter(tenant=tenant, accepted_at__isnull=True, revoked_at__isnull=True)
    opened.filter(expires_at__lte=now).update(revoked_at=now)
    if opened.filter(email=address).exists():
        raise Conflict(
            "This address has an open invite; resend it.", error_code="invite_already_exists"
        )
    if opened.count() >= PENDING_INVITES_MAX:
        raise Conflict(f"A tenant has at most {PENDING_INVITES_MAX} open invites.")


def _person_of(invite: Invite, user: User | None, *, name: str, password: str) -> User:
    if user is not None:
        if user.email != invite.email:
            raise NotAuthenticated("Sign in with the address that was invited.")
        return user
    if User.objects.filter(email=invite.email).exists():
        raise NotAuthenticated("Sign in with the address that was invited.")
    person = User(email=invite.email, name=check_name(name))
    try:
        validate_password(password, person)
    except ValidationError as error:
        raise InvalidInput(" ".join(error.messages), field="password") from error
    return User.objects.create_user(invite.email, password, name=person.name)


def _check_email(email: str) -> str:
    address = email.strip().lower()
    try:
        validate_email(address)
    except ValidationError as error:
        raise InvalidInput("Not an email address.", field="email") from error
    if len(address) > EMAIL_LENGTH_MAX or not address.isascii():
        raise InvalidInput("Not an email address.", field="email")
    return address


def _new_token() -> tuple[str, str]:
    token = signing.Signer(salt=_SIGNER_SALT).sign(secrets.token_urlsafe(32))
    return token, _hash_token(token)


def _hash_token(token: str) -> str:
    """The hash under which a token is kept; a token that we did not sign is not even looked up."""
    try:
        signing.Signer(salt=_SIGNER_SALT).unsign(token[:TOKEN_LENGTH_MAX])
    except signing.BadSignature as error:
        raise NotFound(_NOT_OPEN) from error
    return hashlib.sha256(token.encode()).hexdigest()


def _record(
    caller: Caller, invite: Invite, action: str, *, after: dict[str, str] | None = None
) -> None:
    record_audit(
        actor=caller,
        tenant=invite.tenant_id,
        action=action,
        target=ids.public_id(ids.INVITE, invite.uuid),
        after=after,
    )


def _record_member(
    caller: Caller,
    member: Member,
    action: str,
    *,
    before: dict[str, str] | None = None,
    after: dict[str, str] | None = None,
) -> None:
    record_audit(
        actor=caller,
        tenant=member.tenant_id,
        action=action,
        target=member.user.public_id,
        before=before,
        after=after,
    )
