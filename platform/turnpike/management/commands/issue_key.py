"""issue_key: a tenant on a tier with credit, and new keys for it, in one call."""

import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.models import ApiKey, Tenant
from accounts.queries import find_tenant_by_name, get_default_workspace
from accounts.services.keys import issue_key
from accounts.services.tenants import create_tenant
from billing.services.tiers import set_tier
from billing.services.wallet import grant_credit
from turnpike.control.caller import SYSTEM
from turnpike.control.publication import watch_publication
from turnpike.control.scope import platform_scope
from turnpike.kernel import ids
from turnpike.kernel.errors import TurnpikeError
from turnpike.kernel.money import Nanos, parse_amount

REASON = "manage.py issue_key"


class Command(BaseCommand):
    """Makes the tenant if needed, sets its tier, grants credit and issues keys anew each time."""

    help = "Issue an API key and a management key for a tenant; the keys work at once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The command line."""
        parser.add_argument("--tenant-name", required=True, help="Made if there is none.")
        parser.add_argument("--tier", default="", help="For example pro; missing: as it is.")
        parser.add_argument("--credit", default="0", help="Dollars to grant, for example 25.50.")
        parser.add_argument("--json", action="store_true", help="Print one JSON line.")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Do it and print tenant, api_key and management_key."""
        try:
            amount = parse_amount(options["credit"])
            with watch_publication() as publication:
                answer = _issue(options["tenant_name"], options["tier"], amount)
        except (TurnpikeError, ValueError) as error:
            raise CommandError(str(error)) from error
        if not publication.is_effective:
            print("Redis is away: the keys will work once it is back.", file=sys.stderr)
        if options["json"]:
            self.stdout.write(json.dumps(answer))
            return
        for name, value in answer.items():
            self.stdout.write(f"{name}: {value}")


def _issue(tenant_name: str, tier: str, amount: Nanos) -> dict[str, str]:
    with platform_scope(REASON):
        tenant = find_tenant_by_name(tenant_name.strip())
    if tenant is None:
        tenant = create_tenant(caller=SYSTEM, name=tenant_name, reason=REASON)
    # Tier and credit first: who reads the new key finds what it may spend.
    if tier:
        set_tier(tenant=tenant.pk, tier=tier.lower(), actor=SYSTEM.actor, reason=REASON)
    if amount:
        grant_credit(
            tenant=tenant.pk,
            amount=amount,
            idempotency_key=f"issue_key:{ids.uuid7()}",
            reason=REASON,
            actor=SYSTEM.actor,
        )
    return {
        "tenant": tenant.public_id,
        "api_key": _new_key(tenant, ApiKey.Kind.API),
        "management_key": _new_key(tenant, ApiKey.Kind.MANAGEMENT),
    }


def _new_key(tenant: Tenant, kind: ApiKey.Kind) -> str:
    with platform_scope(REASON):
        workspace = get_default_workspace(tenant)
        issued = issue_key(
            caller=SYSTEM, workspace=workspace, kind=kind, settings={"name": f"{kind} key"}
        )
    return issued.secret
