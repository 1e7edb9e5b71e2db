"""add_operator, remove_operator, reset_second_factor, end_sessions: the platform's own people.

Each is written to the platform's audit log with its reason.
"""

import secrets
from dataclasses import dataclass

from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from accounts.models import EMAIL_LENGTH_MAX, User
from accounts.services.audit import record_audit
from accounts.services.settings import check_reason
from turnpike.control.caller import Caller
from turnpike.control.scope import platform_scope
from turnpike.kernel.errors import Conflict, InvalidInput

PASSWORD_BYTES = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedOperator:
    """A new operator; the first password is shown once, None for who had an account already."""

    user: User
    password: str | None

    def __repr__(self) -> str:
        return f"AddedOperator({self.user.public_id})"


def add_operator(*, caller: Caller, email: str, reason: str, name: str = "") -> AddedOperator:
    """Make somebody an operator; an address without an account gets one."""
    checked_reason, address = check_reason(reason), _check_email(email)
    with platform_scope("accounts.add_operator"):
        user = User.objects.select_for_update().filter(email=address).first()
        password = None
        if user is not None and user.is_staff:
            raise Conflict("This person is an operator already.")
        if user is None:
            password = secrets.token_urlsafe(PASSWORD_BYTES)
            user = User.objects.create_user(address, password, name=name.strip(), is_staff=True)
        else:
            user.is_staff = True
            user.save(update_fields=["is_staff"])
        _record(caller, "operator.added", user, reason=checked_reason)
    return AddedOperator(user=user, password=password)


def remove_operator(*, caller: Caller, user: User, reason: str) -> None:
    """Somebody is no operator any more, and is signed out; their account stays. Not of oneself."""
    checked_reason = check_reason(reason)
    with platform_scope("accounts.remove_operator"):
        # All of them are locked, so that two who remove each other take turns.
        operators = User.objects.select_for_update().filter(is_staff=True, is_active=True)
        known = {row.pk: row for row in operators.order_by("pk")}
        if user.pk == caller.user:
            raise Conflict("Nobody removes themselves; another operator does it.")
        if user.pk not in known:
            raise Conflict("This person is no operator.")
        if caller.user is not None and caller.user not in known:
            raise Conflict("You are no operator any more.")
        row = known[user.pk]
        row.is_staff = row.is_superuser = False
        row.save(update_fields=["is_staff", "is_superuser"])
        _record(caller, "operator.removed", row, reason=checked_reason)
        _sign_out(row)


def reset_second_factor(*, caller: Caller, user: User, reason: str) -> int:
    """Take all of a person's factors away and sign them out; how many factors there were."""
    checked_reason = check_reason(reason)
    if user.pk == caller.user:
        raise Conflict("Nobody resets their own second factor here; another operator does it.")
    with platform_scope("accounts.reset_second_factor"):
        row = User.objects.select_for_update().get(pk=user.pk)
        kinds = list(Authenticator.objects.filter(user=row).values_list("type", flat=True))
        Authenticator.objects.filter(user=row).delete()
        _record(
            caller,
            "user.second_factor_reset",
            row,
            reason=checked_reason,
            before={"factors": sorted(kinds)},
        )
        _sign_out(row)
    return len(kinds)


def end_sessions(*, caller: Caller, user: User, reason: str) -> int:
    """Sign a person out everywhere; how many sessions there were."""
    checked_reason = check_reason(reason)
    with platform_scope("accounts.end_sessions"):
        count = _sign_out(user)
        _record(
            caller, "user.sessions_ended", user, reason=checked_reason, before={"sessions": count}
        )
    return count


def _sign_out(user: User) -> int:
    rows = list(UserSession.objects.filter(user=user))
    for row in rows:
        row.end()
    return len(rows)


def _record(
    caller: Caller,
    action: str,
    user: User,
    *,
    reason: str,
    before: dict[str, object] | None = None,
) -> None:
    record_audit(
        actor=caller,
        tenant=None,
        action=action,
        target=user.public_id,
        before=before,
        after={"email": user.email},
        reason=reason,
    )


def _check_email(email: str) -> str:
    address = email.strip().lower()
    try:
        validate_email(address)
    except ValidationError as error:
        raise InvalidInput("email is no address.", field="email") from error
    if len(address) > EMAIL_LENGTH_MAX:
        raise InvalidInput("email is too long.", field="email")
    return address
