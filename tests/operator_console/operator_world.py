"""An operator, a platform with some tenants, and browsers for both."""

from typing import Any

from allauth.account.internal.flows.login import record_authentication
from django.http import HttpRequest
from django.test import Client

from accounts.models import AuditEvent, User
from tests.accounts.factories import make_user
from turnpike.control.scope import platform_scope

BACKEND = "django.contrib.auth.backends.ModelBackend"
REASON = "asked for by the customer"


def make_operator(**fields: Any) -> User:
    """Somebody of the platform's staff."""
    return make_user(is_staff=True, **fields)


def browser_of(user: User | None, *, is_proved: bool = True, language: str = "en") -> Client:
    """A browser in which somebody is signed in, or nobody."""
    client = Client()
    client.cookies["turnpike_language"] = language
    if user is None:
        return client
    client.force_login(user, backend=BACKEND)
    if is_proved:
        request = HttpRequest()
        request.session = client.session
        record_authentication(request, user, method="password")
        request.session.save()
    return client


def audited(action: str, *, tenant: int | None = None) -> list[AuditEvent]:
    """The rows of the audit log about something that was done."""
    with platform_scope("tests"):
        return list(AuditEvent.objects.filter(action=action, tenant=tenant).order_by("pk"))
