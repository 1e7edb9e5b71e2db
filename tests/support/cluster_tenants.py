"""Run in a cluster's environment: catalogue, tiers, the simulator as upstream, tenants with keys.

The argument is JSON: `simulator_url` and `tenants`, each with `name`, `tier`, `credit` in dollars,
and perhaps `limits` (the tenant's overrides), `key` (settings of its key), `line` (a credit line in
dollars; the tenant is postpaid then). Prints the keys by name.
"""

import json
import sys
from typing import Any

import django

django.setup()

from accounts.models import Workspace  # noqa: E402
from accounts.services import keys, tenants  # noqa: E402
from billing.services import catalog, publication, tiers, upstreams, wallet  # noqa: E402
from turnpike.contracts.snapshots import Limits  # noqa: E402
from turnpike.control.caller import SYSTEM  # noqa: E402
from turnpike.control.scope import platform_scope  # noqa: E402
from turnpike.kernel.money import parse_amount  # noqa: E402

REASON = "a test's tenant"


def make_tenant(plan: dict[str, Any]) -> str:
    """Make one tenant; returns its key."""
    tenant = tenants.create_tenant(caller=SYSTEM, name=plan["name"]).pk
    tiers.set_tier(tenant=tenant, tier=plan["tier"], actor="system", reason=REASON)
    if "limits" in plan:
        limits = Limits(**plan["limits"])
        tiers.set_overrides(tenant=tenant, limits=limits, actor="system", reason=REASON)
    if "line" in plan:
        wallet.set_mode(tenant=tenant, mode="postpaid", actor="system")
        wallet.set_credit_line(tenant=tenant, limit=parse_amount(plan["line"]), actor="system")
    if "credit" in plan:
        wallet.grant_credit(
            tenant=tenant,
            amount=parse_amount(plan["credit"]),
            idempotency_key=f"grant {plan['name']}",
            reason=REASON,
            actor="system",
        )
    with platform_scope(REASON):
        workspace = Workspace.objects.get(tenant_id=tenant)
        settings = {"name": plan["name"], **plan.get("key", {})}
        issued = keys.issue_key(caller=SYSTEM, workspace=workspace, settings=settings)
    return issued.secret


def main() -> None:
    """Make everything, publish it, and print the keys."""
    plan = json.loads(sys.argv[1])
    catalog.import_catalog()
    tiers.ensure_tiers()
    upstreams.add_upstream(
        name="simulator",
        kind="anthropic",
        base_url=plan["simulator_url"],
        credential="a-key-for-the-simulator",
        is_simulator=True,
        send_request_id=True,
    )
    made = {item["name"]: make_tenant(item) for item in plan["tenants"]}
    publication.publish_everything()
    sys.stdout.write(json.dumps(made) + "\n")


if __name__ == "__main__":
    main()
