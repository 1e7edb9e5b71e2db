"""Days of usage before today for the demo tenants, so that charts of a month have a month.

Made up, and of made-up tenants alone: events with a date go into the stream, and from there the way
of all events: rated, posted, rolled up. No request was sent, and no upstream counted them.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from billing.models.catalog import DEFAULT_BOOK, CatalogModel, ModelAlias, PriceSet
from billing.models.usage import UsageRollup
from billing.services.wallet import grant_credit
from turnpike.contracts.usage import RANK_REPORTED, STATUS_OF_RANK, UsageEvent
from turnpike.control.caller import SYSTEM
from turnpike.control.redis import redis_client
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids, keyspace
from turnpike.kernel.codec import to_json
from turnpike.kernel.money import parse_amount
from turnpike.management.traffic import HAIKU, OPUS, SONNET
from turnpike.management.traffic_tenants import LiveTenant, Program

DAYS_MAX = 60
PER_DAY = 14  # events for a tenant of weight 1
HOLD_MICRO = 100_000_000
WEEKEND = 0.35
CREDIT = "500"
MIX = {
    "agent": ((SONNET, 6), (OPUS, 2)),
    "chat": ((SONNET, 4), (HAIKU, 3), (OPUS, 1)),
    "tools": ((SONNET, 1),),
    "batch": ((HAIKU, 1),),
    "translate": ((HAIKU, 1),),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prices:
    """Which price set rates, and the canonical names of models."""

    price_set: int
    models: dict[str, str]


def write_history(
    tenants: Sequence[LiveTenant], *, days: int, seed: int, on_day: Callable[[], None]
) -> int:
    """Append a history to the stream, once; returns how many events, 0 where there was one."""
    # Not for secrets.
    chance = random.Random(seed)  # noqa: S311
    today = clock.utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    fresh = [live for live in tenants if not _has_history(live, today)]
    prices = _read_prices()
    for live in fresh:
        _give_credit(live)
    written = 0
    for back in range(days, 0, -1):
        day = today - timedelta(days=back)
        for live in fresh:
            written += _write_day(live, day, prices, chance)
        on_day()
    return written


def _has_history(live: LiveTenant, today: datetime) -> bool:
    with platform_scope("demo_traffic"):
        rows = UsageRollup.objects.filter(tenant_id=live.tenant.pk, bucket_at__lt=today)
        return rows.exists()


def _give_credit(live: LiveTenant) -> None:
    if live.spec.credit.startswith("0"):
        return  # whoever is to run out of credit does
    grant_credit(
        tenant=live.tenant.pk,
        amount=parse_amount(CREDIT),
        idempotency_key=f"demo_traffic:history:{live.tenant.public_id}",
        reason="Credit of a tenant that is made up, for its history.",
        actor=SYSTEM.actor,
    )


def _write_day(live: LiveTenant, day: datetime, prices: _Prices, chance: random.Random) -> int:
    busy = WEEKEND if day.weekday() >= 5 else 1.0
    if live.spec.credit.startswith("0"):
        return 0
    count = int(PER_DAY * live.spec.weight * busy * chance.uniform(0.7, 1.2))
    client, shard = redis_client(), keyspace.shard_of(live.tenant.pk)
    pipeline = client.pipeline(transaction=False)
    programs = live.spec.programs
    for _ in range(count):
        program = chance.choices(programs, [item.weight for item in programs])[0]
        # Most of it in the middle of the day.
        second = int(min(86_399, max(0, chance.gauss(50_000, 15_000))))
        event = _event(live, program, day + timedelta(seconds=second), prices, chance)
        pipeline.xadd(keyspace.usage_stream(shard), {keyspace.EVENT_FIELD: to_json(event)})
    pipeline.execute()
    return count


def _event(
    live: LiveTenant, program: Program, at: datetime, prices: _Prices, chance: random.Random
) -> UsageEvent:
    names, weights = zip(*MIX[program.kind], strict=True)
    asked = chance.choices(names, weights)[0]
    model = prices.models.get(asked, asked)
    output = chance.randrange(150, 2_500)
    started_at_us = clock.us_of_datetime(at)
    ttft_us = chance.randrange(250_000, 1_900_000)
    is_agent = program.kind == "agent"
    return UsageEvent(
        rid=str(ids.uuid7(at_ms=started_at_us // 1_000)),
        rank=RANK_REPORTED,
        status=STATUS_OF_RANK[RANK_REPORTED],
        tenant=int(live.tenant.pk),
        workspace=int(live.workspace.pk),
        key=int(live.keys[program.key].pk),
        model=model,
        upstream_model=model,
        requested_model=asked,
        price_set=prices.price_set,
        started_at_us=started_at_us,
        finished_at_us=started_at_us + ttft_us + output * 12_000,
        hold_micro=HOLD_MICRO,
        stream=program.kind != "batch",
        usage={
            "input_tokens": chance.randrange(400, 9_000),
            "output_tokens": output,
            "cache_read_input_tokens": chance.randrange(4_000, 40_000) if is_agent else 0,
            "cache_creation_input_tokens": chance.randrange(0, 3_000) if is_agent else 0,
        },
        ttft_us=ttft_us,
        http_status=200,
        stop_reason="tool_use" if program.kind == "tools" else "end_turn",
        output_chars=output * 4,
    )


def _read_prices() -> _Prices:
    with platform_scope("demo_traffic"):
        sets = PriceSet.objects.filter(book__name=DEFAULT_BOOK, effective__contains=clock.utc_now())
        models = {row.alias: row.model.model for row in ModelAlias.objects.select_related("model")}
        models |= {name: name for name in CatalogModel.objects.values_list("model", flat=True)}
        return _Prices(price_set=sets.get().pk, models=models)
