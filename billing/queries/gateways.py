"""read_gateways: the live workers of the data plane and what each says of itself."""

from dataclasses import dataclass
from datetime import datetime

from turnpike.control.redis import redis_client, text_of
from turnpike.kernel import clock, keyspace

ALIVE_MS = 15_000
SHOWN_MAX = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayFacts:
    """One worker of the data plane; counts since its process began."""

    worker: str
    beaten_at: datetime
    open: int
    unconfirmed: int
    oldest_started_at: datetime | None
    is_writable: bool
    journal_bytes: int
    fallback_admitted: int
    redis_connects: int
    round_errors: int


def read_gateways(*, at: datetime) -> list[GatewayFacts]:
    """Workers that were heard of a short while ago. Raises redis.RedisError without Redis."""
    client = redis_client()
    since_ms = int(at.timestamp() * 1_000) - ALIVE_MS
    members = client.zrangebyscore(keyspace.GATEWAYS, since_ms, "+inf", start=0, num=SHOWN_MAX)
    workers = sorted(text_of(member) for member in members)
    pipeline = client.pipeline(transaction=False)
    for worker in workers:
        pipeline.hgetall(keyspace.gateway_facts(worker))
    return [
        _facts(worker, {text_of(name): int(value) for name, value in fields.items()}, at)
        for worker, fields in zip(workers, pipeline.execute(), strict=True)
    ]


def _facts(worker: str, fields: dict[str, int], at: datetime) -> GatewayFacts:
    oldest_ms = fields.get("oldest_started_ms", 0)
    return GatewayFacts(
        worker=worker,
        beaten_at=clock.datetime_of_us(fields["at_ms"] * 1_000) if "at_ms" in fields else at,
        open=fields.get("open", 0),
        unconfirmed=fields.get("unconfirmed", 0),
        oldest_started_at=clock.datetime_of_us(oldest_ms * 1_000) if oldest_ms else None,
        # A gateway of the release before says nothing of itself.
        is_writable=bool(fields.get("is_writable", 1)),
        journal_bytes=fields.get("journal_bytes", 0),
        fallback_admitted=fields.get("fallback_admitted", 0),
        redis_connects=fields.get("redis_connects", 0),
        round_errors=fields.get("round_errors", 0),
    )
