"""DRF authentication classes: a session with CSRF, or a management key in either key header."""

import ipaddress
import logging
from datetime import timedelta
from typing import Any

import redis
from django.conf import settings
from django.core.cache import cache
from django.db.models import Q
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import AuthenticationFailed, Throttled
from rest_framework.request import Request

from accounts.access import ROLE_POWERS
from accounts.models import ApiKey, ApiKeyStatus, Member, Tenant, TenantStatus, User
from accounts.queries import find_key_by_secret, list_memberships
from turnpike.control.caller import Caller, Power
from turnpike.control.drf import client_address
from turnpike.control.scope import platform_scope
from turnpike.env import env
from turnpike.kernel import clock
from turnpike.kernel.errors import NotFound, PermissionDenied

logger = logging.getLogger(__name__)

SESSION_TENANT = "tenant"
TENANT_HEADER = "turnpike-tenant"
USED_EVERY = timedelta(minutes=1)
FAILURES_MAX = 60
FAILURES_SECONDS = 60
_REFUSED = "This key is not known or not in force."


class KeyAuthentication(BaseAuthentication):
    """A management key in `x-api-key` or `Authorization: Bearer`."""

    def authenticate(self, request: Request) -> tuple[Caller, Caller] | None:
        """The caller behind the key; None without one. Raises AuthenticationFailed."""
        secret = read_secret(request)
        if secret is None:
            return None
        address = client_address(request)
        check_failures(address)
        with platform_scope("accounts.authenticate_key"):
            key = find_key_by_secret(secret, peppers=env().peppers)
            if key is None or not is_usable(key):
                count_failure(address)
                raise AuthenticationFailed(_REFUSED)
            _check_may_manage(key, address)
            note_use(key)
        caller = Caller(
            actor=key.public_id,
            tenant=key.tenant_id,
            powers=frozenset(Power(scope) for scope in key.scopes),
            address=address,
            request_id=_request_id(request),
        )
        return caller, caller

    def authenticate_header(self, _request: Request) -> str:
        """What a client without credentials is told to send."""
        return "Bearer"


class MemberAuthentication(SessionAuthentication):
    """A signed-in member; the tenant is the one chosen in the session or named in a header."""

    def authenticate(self, request: Request) -> tuple[User, Caller] | None:
        """The caller behind the session; None without one."""
        found = super().authenticate(request)
        if found is None:
            return None
        user: User = found[0]
        with platform_scope("accounts.authenticate_member"):
            member = _chosen_membership(request, user)
        caller = Caller(
            actor=user.public_id,
            tenant=member.tenant_id,
            powers=ROLE_POWERS[member.role],
            user=user.pk,
            address=client_address(request),
            request_id=_request_id(request),
        )
        return user, caller


class OperatorAuthentication(SessionAuthentication):
    """A signed-in member of the platform's staff."""

    def authenticate(self, request: Request) -> tuple[User, Caller] | None:
        """The caller behind the session; not an operator unless they are staff."""
        found = super().authenticate(request)
        if found is None:
            return None
        user: User = found[0]
        caller = Caller(
            actor=user.public_id,
            is_operator=user.is_staff,
            user=user.pk,
            powers=frozenset(Power) if user.is_staff else frozenset(),
            address=client_address(request),
            request_id=_request_id(request),
        )
        return user, caller

    def authenticate_header(self, _request: Request) -> str:
        """Makes a missing session a 401."""
        return "Session"


class VisitorAuthentication(SessionAuthentication):
    """Anybody: a session counts if there is one."""

    def authenticate(self, request: Request) -> tuple[User | None, Caller]:
        """A caller without powers; the user is who is signed in, or None."""
        found = super().authenticate(request)
        user: User | None = found[0] if found is not None else None
        caller = Caller(
            actor="visitor" if user is None else user.public_id,
            user=None if user is None else user.pk,
            address=client_address(request),
            request_id=_request_id(request),
        )
        return user, caller


def read_secret(request: Request) -> str | None:
    """The one key that was sent. Two different ones are a mistake or an attack: 401."""
    sent = set()
    if "x-api-key" in request.headers:
        sent.add(request.headers["x-api-key"].strip())
    if "authorization" in request.headers:
        scheme, _, credential = request.headers["authorization"].partition(" ")
        if scheme.lower() != "bearer":
            raise AuthenticationFailed("Authorization must be Bearer and a key.")
        sent.add(credential.strip())
    if len(sent) > 1:
        raise AuthenticationFailed("x-api-key and Authorization hold different credentials.")
    return sent.pop() if sent else None


def is_usable(key: ApiKey) -> bool:
    is_active = key.status_at(clock.utc_now()) == ApiKeyStatus.ACTIVE
    return is_active and key.tenant.status != TenantStatus.CLOSED


def _check_may_manage(key: ApiKey, address: str) -> None:
    if key.kind != ApiKey.Kind.MANAGEMENT:
        raise PermissionDenied("An inference key cannot call the management API.")
    if not key.ip_ranges:
        return
    ranges = [ipaddress.ip_network(text) for text in key.ip_ranges]
    if not address or not any(ipaddress.ip_address(address) in item for item in ranges):
        raise PermissionDenied("This key may not be used from this address.")


def note_use(key: ApiKey) -> None:
    now = clock.utc_now()
    is_stale = Q(last_used_at__isnull=True) | Q(last_used_at__lt=now - USED_EVERY)
    ApiKey.objects.filter(is_stale, pk=key.pk).update(last_used_at=now)


def _chosen_membership(request: Request, user: User) -> Member:
    memberships = list_memberships(user.pk)
    named = request.headers.get(TENANT_HEADER)
    if named is not None:
        try:
            memberships = memberships.filter(tenant__uuid=Tenant.parse_public_id(named))
        except ValueError as error:
            raise NotFound("There is no such tenant.") from error
    elif SESSION_TENANT in request.session:
        memberships = memberships.filter(tenant_id=request.session[SESSION_TENANT])
    member = memberships.first()
    if member is not None:
        return member
    if named is not None:
        raise NotFound("There is no such tenant.")
    raise PermissionDenied("You are not a member of a tenant.")


def _request_id(request: Request) -> str:
    return str(getattr(request, "request_id", ""))


def check_failures(address: str) -> None:
    """Slow down whoever guesses. Open when the cache is away: keys have 214 random bits anyway."""
    try:
        failures = cache.get(_failures_key(address), 0)
    except redis.RedisError:
        logger.warning("auth.failures_not_counted")
        return
    if failures >= FAILURES_MAX:
        raise Throttled(wait=FAILURES_SECONDS)


def count_failure(address: str) -> None:
    name = _failures_key(address)
    try:
        if not cache.add(name, 1, timeout=FAILURES_SECONDS):
            cache.incr(name)
    except redis.RedisError:
        logger.warning("auth.failures_not_counted")
    except ValueError:
        return  # It ended between the two calls, and the count with it.


def _failures_key(address: str) -> str:
    return f"auth-failures:{address}"


class KeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the schema describes management keys."""

    target_class = KeyAuthentication
    name = ["managementKey", "managementKeyBearer"]

    def get_security_definition(self, _auto_schema: Any) -> list[dict[str, Any]]:
        """Either header."""
        return [
            {"type": "apiKey", "in": "header", "name": "x-api-key"},
            {"type": "http", "scheme": "bearer"},
        ]


class SessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the schema describes members' sessions."""

    target_class: type[SessionAuthentication] = MemberAuthentication
    name = "session"

    def get_security_definition(self, _auto_schema: Any) -> dict[str, Any]:
        """The session's cookie."""
        return {"type": "apiKey", "in": "cookie", "name": settings.SESSION_COOKIE_NAME}


class OperatorScheme(SessionScheme):  # type: ignore[no-untyped-call]
    """How the schema describes operators' sessions."""

    target_class = OperatorAuthentication
    name = "operatorSession"


class VisitorScheme(SessionScheme):  # type: ignore[no-untyped-call]
    """How the schema describes sessions that may be missing."""

    target_class = VisitorAuthentication
    name = "visitorSession"
