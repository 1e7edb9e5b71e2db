"""The demo that `manage.py bootstrap` makes: an operator, a tenant with credit, owner and keys.

Secrets are shown once by the services that make them, so they are kept in the state directory,
readable by its owner alone. If that file is gone, the old ones are revoked and new ones made.
"""

import json
import secrets
from dataclasses import asdict, dataclass
from typing import Any

from accounts.models import ApiKey, Member, Role, Tenant, User, Workspace
from accounts.services.keys import issue_key, revoke_key
from accounts.services.members import add_member
from accounts.services.tenants import create_tenant
from billing.services.tiers import set_tier
from billing.services.wallet import grant_credit
from turnpike.control.caller import SYSTEM
from turnpike.control.scope import platform_scope
from turnpike.embedded.state import DEMO_FILE, StateDir
from turnpike.env import env
from turnpike.kernel import clock, hashing
from turnpike.kernel.money import parse_amount

TENANT_NAME = "Demo"
TIER = "pro"
CREDIT = "100"
OPERATOR_EMAIL = "operator@turnpike.example"
OWNER_EMAIL = "owner@demo.turnpike.example"
KEY_NAMES = {ApiKey.Kind.API: "Demo key", ApiKey.Kind.MANAGEMENT: "Demo management key"}
PASSWORD_BYTES = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who signs in: the operator to run the platform, the owner to use it."""

    email: str
    password: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What a newcomer needs for the first request."""

    operator: Person
    owner: Person
    tenant: str
    api_key: str
    management_key: str


def make_demo(state: StateDir) -> Demo:
    """The demo, made where something of it is missing; the same again at each call."""
    kept = state.read_json(DEMO_FILE)
    with platform_scope("bootstrap"):
        operator = _person(
            OPERATOR_EMAIL, "Operator", kept.get("operator", {}), is_staff=True, is_superuser=True
        )
        owner = _person(OWNER_EMAIL, "Demo owner", kept.get("owner", {}))
        tenant = _tenant()
        _make_owner(tenant, owner)
        return Demo(
            operator=operator,
            owner=owner,
            tenant=tenant.public_id,
            api_key=_key(tenant, ApiKey.Kind.API, kept.get("api_key", "")),
            management_key=_key(tenant, ApiKey.Kind.MANAGEMENT, kept.get("management_key", "")),
        )


def keep(state: StateDir, report: dict[str, Any]) -> None:
    """Keep the report, secrets included, for the next call and for `manage.py up`."""
    state.path.mkdir(mode=0o711, parents=True, exist_ok=True)
    state.write_private(DEMO_FILE, json.dumps(report, indent=1))


def report_of(
    demo: Demo, *, console_url: str, simulator_url: str, answered_by: str
) -> dict[str, Any]:
    """The object that `bootstrap --json` prints."""
    return {
        "base_url": console_url,
        "console_url": f"{console_url}/console/",
        "simulator_url": simulator_url,
        **asdict(demo),
        "answered_by": answered_by,
    }


def _person(email: str, name: str, kept: dict[str, str], **powers: bool) -> Person:
    password = kept.get("password", "")
    user = User.objects.filter(email=email).first()
    if user is None or not (password and user.check_password(password)):
        password = secrets.token_urlsafe(PASSWORD_BYTES)
        if user is None:
            User.objects.create_user(email, password, name=name, **powers)
        else:
            user.set_password(password)
            user.save(update_fields=["password"])
    return Person(email=email, password=password)


def _make_owner(tenant: Tenant, person: Person) -> None:
    user = User.objects.get(email=person.email)
    if not Member.objects.filter(tenant=tenant, user=user).exists():
        add_member(caller=SYSTEM, tenant=tenant, user=user, role=Role.OWNER)


def _tenant() -> Tenant:
    tenant = Tenant.objects.filter(name=TENANT_NAME).order_by("pk").first()
    if tenant is not None:
        return tenant
    tenant = create_tenant(caller=SYSTEM, name=TENANT_NAME, reason="bootstrap")
    set_tier(tenant=tenant.pk, tier=TIER, actor=SYSTEM.actor, reason="bootstrap")
    grant_credit(
        tenant=tenant.pk,
        amount=parse_amount(CREDIT),
        idempotency_key=f"bootstrap:{tenant.public_id}",
        reason="Credit to try things with.",
        actor=SYSTEM.actor,
    )
    return tenant


def _key(tenant: Tenant, kind: str, kept: str) -> str:
    digests = hashing.digest_candidates(kept, peppers=env().peppers) if kept else []
    now = clock.utc_now()
    own = ApiKey.objects.filter(tenant=tenant, kind=kind)
    found = own.filter(digest__in=digests).first()
    if found is not None and found.status_at(now) == "active":
        return kept
    for lost in own.filter(name=KEY_NAMES[ApiKey.Kind(kind)], revoked_at__isnull=True):
        revoke_key(caller=SYSTEM, key=lost)
    workspace = Workspace.objects.get(tenant=tenant, is_default=True)
    settings = {"name": KEY_NAMES[ApiKey.Kind(kind)]}
    return issue_key(caller=SYSTEM, workspace=workspace, kind=kind, settings=settings).secret
