"""Thirty days of believable usage for one tenant, so that pictures show what charts look like.

Run by the platform's own interpreter: ``manage.py shell -c "…history.write('ten_…')"``.
"""

import random
from datetime import timedelta

from accounts.models import ApiKey, Tenant, Workspace
from accounts.services.keys import issue_key
from billing.models.catalog import DEFAULT_BOOK, PriceSet
from tests.billing.usage_world import Shop, append, make_event
from turnpike.control.caller import SYSTEM
from turnpike.control.redis import redis_client
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids

DAYS = 30
MODELS = (
    ("claude-sonnet-4-5-20250929", 9),
    ("claude-haiku-4-5-20251001", 6),
    ("claude-opus-4-1-20250805", 2),
)
KEYS = (("production-backend", 1_500), ("claude-code-team", 12), ("eval-nightly", 100))


def write(tenant_id: str) -> None:
    """Put the events into the stream; ingest posts them within a second or two."""
    with platform_scope("tests"):
        tenant = Tenant.objects.get(uuid=Tenant.parse_public_id(tenant_id))
        workspace = Workspace.objects.get(tenant=tenant, is_default=True)
        price_set = PriceSet.objects.filter(book__name=DEFAULT_BOOK).order_by("-pk")[0]
        keys = [_key(workspace, name, dollars) for name, dollars in KEYS]
    chance = random.Random(7)
    client = redis_client()
    for back in reversed(range(DAYS)):
        at = clock.utc_now() - timedelta(days=back, minutes=5)
        busy = 0.35 if at.weekday() >= 5 else 1.0
        for model, share in MODELS:
            for _ in range(max(1, int(share * busy * chance.uniform(0.5, 1.2)))):
                started = at - timedelta(minutes=chance.randrange(600))
                shop = Shop(
                    tenant=tenant,
                    workspace=workspace,
                    key=chance.choice(keys),
                    price_set=price_set.pk,
                )
                rid = ids.uuid7(at_ms=int(started.timestamp() * 1_000))
                usage = {
                    "input_tokens": chance.randrange(2_000, 40_000),
                    "output_tokens": chance.randrange(200, 3_500),
                    "cache_read_input_tokens": chance.randrange(0, 60_000),
                }
                event = make_event(
                    shop,
                    rid=rid,
                    model=model,
                    upstream_model=model,
                    requested_model=model,
                    usage=usage,
                    ttft_us=chance.randrange(250_000, 1_900_000),
                )
                append(client, event)


def _key(workspace: Workspace, name: str, dollars: int) -> ApiKey:
    found = ApiKey.objects.filter(workspace=workspace, name=name).first()
    if found is not None:
        return found
    settings = {"name": name, "monthly_budget_nano": dollars * 1_000_000_000}
    return issue_key(caller=SYSTEM, workspace=workspace, settings=settings).key
