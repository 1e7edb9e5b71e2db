"""The tenants of `manage.py demo_traffic`: who they are, and the keys that their programs use.

Made once and kept: secrets lie in the state directory, readable by its owner alone. What is lost is
revoked and made anew.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from accounts.models import ApiKey, Member, Role, Tenant, User, Workspace
from accounts.queries import find_tenant_by_name, get_default_workspace
from accounts.services.keys import issue_key, revoke_key
from accounts.services.members import add_member
from accounts.services.tenants import create_tenant
from billing.services.tiers import set_tier
from billing.services.wallet import grant_credit
from turnpike.control.caller import SYSTEM
from turnpike.control.scope import platform_scope
from turnpike.embedded.state import StateDir
from turnpike.env import env
from turnpike.kernel import clock, hashing
from turnpike.kernel.money import parse_amount

KEPT_FILE = "demo_traffic.json"
REASON = "manage.py demo_traffic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program of a tenant: its key's name, and which of the kinds of conversation it has."""

    key: str
    kind: str
    weight: int
    models: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoTenant:
    """A tenant that does not exist but could."""

    name: str
    tier: str
    credit: str
    people: tuple[tuple[str, str, str], ...]
    programs: tuple[Program, ...]
    weight: int


@dataclass(slots=True, kw_only=True)
class LiveTenant:
    """A demo tenant as it is here, with the secrets of its programs' keys."""

    spec: DemoTenant
    tenant: Tenant
    workspace: Workspace
    keys: dict[str, ApiKey] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)


# All of them say what they are in their name, so that nobody takes them for customers.
TENANTS: tuple[DemoTenant, ...] = (
    DemoTenant(
        name="Northwind Robotics (demo)",
        tier="pro",
        credit="400",
        weight=9,
        people=(
            ("mei.chen@northwind.example", "Mei Chen", Role.OWNER),
            ("tomas.lind@northwind.example", "Tomas Lind", Role.DEVELOPER),
            ("ana.ruiz@northwind.example", "Ana Ruiz", Role.BILLING),
        ),
        programs=(
            Program(key="coding-agents", kind="agent", weight=5),
            Program(key="support-chat", kind="chat", weight=4),
            Program(key="eval-nightly", kind="batch", weight=2),
        ),
    ),
    DemoTenant(
        name="Kitezh Analytics (demo)",
        tier="pro",
        credit="150",
        weight=5,
        people=(
            ("ivan.orlov@kitezh.example", "Иван Орлов", Role.OWNER),
            ("olga.sokolova@kitezh.example", "Ольга Соколова", Role.ADMIN),
        ),
        programs=(
            Program(key="report-writer", kind="chat", weight=3),
            Program(key="table-extractor", kind="tools", weight=4),
        ),
    ),
    DemoTenant(
        name="木兰翻译 (demo)",
        tier="basic",
        credit="60",
        weight=4,
        people=(("lin.wei@mulan.example", "林薇", Role.OWNER),),
        programs=(Program(key="translator", kind="translate", weight=1),),
    ),
    DemoTenant(
        name="Studio Lumen (demo)",
        tier="basic",
        credit="0.02",
        weight=1,
        people=(("noor.haddad@lumen.example", "Noor Haddad", Role.OWNER),),
        # Little credit and one model: what is refused is refused as it would be for anybody.
        programs=(Program(key="storyboard", kind="chat", weight=1, models=("claude-haiku-4-5",)),),
    ),
)


def make_tenants(state: StateDir) -> list[LiveTenant]:
    """The demo tenants with members, tier, credit and working keys; the same at each call."""
    kept = state.read_json(KEPT_FILE)
    with platform_scope(REASON):
        made = [_make(spec, kept.get(spec.name, {})) for spec in TENANTS]
    state.path.mkdir(mode=0o711, parents=True, exist_ok=True)
    state.write_private(KEPT_FILE, json.dumps({live.spec.name: live.secrets for live in made}))
    return made


def _make(spec: DemoTenant, kept: Mapping[str, str]) -> LiveTenant:
    tenant = find_tenant_by_name(spec.name)
    if tenant is None:
        tenant = create_tenant(caller=SYSTEM, name=spec.name, reason=REASON)
        set_tier(tenant=tenant.pk, tier=spec.tier, actor=SYSTEM.actor, reason=REASON)
        grant_credit(
            tenant=tenant.pk,
            amount=parse_amount(spec.credit),
            idempotency_key=f"demo_traffic:{tenant.public_id}",
            reason="Credit of a tenant that is made up.",
            actor=SYSTEM.actor,
        )
    for email, name, role in spec.people:
        _person(tenant, email, name, role)
    live = LiveTenant(spec=spec, tenant=tenant, workspace=get_default_workspace(tenant))
    for program in spec.programs:
        _key(live, program, kept.get(program.key, ""))
    return live


def _person(tenant: Tenant, email: str, name: str, role: str) -> None:
    user = User.objects.filter(email=email).first()
    if user is None:
        # Without a password: nobody signs in as somebody who is made up.
        user = User.objects.create_user(email, name=name)
    if not Member.objects.filter(tenant=tenant, user=user).exists():
        add_member(caller=SYSTEM, tenant=tenant, user=user, role=role)


def _key(live: LiveTenant, program: Program, secret: str) -> None:
    own = ApiKey.objects.filter(tenant=live.tenant, name=program.key, revoked_at=None)
    digests = hashing.digest_candidates(secret, peppers=env().peppers) if secret else []
    key = own.filter(digest__in=digests).first()
    if key is None or key.status_at(clock.utc_now()) != "active":
        for lost in own:
            revoke_key(caller=SYSTEM, key=lost)
        allowed = None if program.models is None else list(program.models)
        issued = issue_key(
            caller=SYSTEM,
            workspace=live.workspace,
            settings={"name": program.key, "allowed_models": allowed},
        )
        key, secret = issued.key, issued.secret
    live.keys[program.key], live.secrets[program.key] = key, secret
