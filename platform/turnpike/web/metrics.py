"""/metrics of the control plane: whether the books agree, and what waits, for Prometheus.

Figures of the whole platform, read when somebody asks, so any one process answers for all. A server
that is away costs its own figures, never the answer.
"""

import hmac
import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import redis
from django.db import Error
from django.db.models import Count
from django.http import HttpRequest, HttpResponse, HttpResponseNotFound
from django.views.decorators.http import require_safe

from billing.models.differences import ReconciliationItem
from billing.models.upkeep import ReconciliationRun
from billing.models.usage import DeadLetter
from billing.queries.everywhere import sum_waived
from billing.queries.gateways import read_gateways
from billing.queries.live import read_queues
from billing.services.standing import oldest_waiting_ms
from turnpike.control import policy
from turnpike.control.scope import platform_scope
from turnpike.env import env
from turnpike.kernel import clock, keyspace

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """One figure; with labels, one of a family."""

    name: str
    help_text: str
    value: float
    label: tuple[str, str] | None = None


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """The figures, for loopback or who has the token; to everybody else there is nothing here."""
    if not _may_read(request):
        return HttpResponseNotFound()
    return HttpResponse(render(read_gauges(at=clock.utc_now())), content_type=CONTENT_TYPE)


def read_gauges(*, at: datetime) -> list[Gauge]:
    """Everything that both servers tell now."""
    return [
        *_from("postgres", lambda: [*_of_the_books(at)]),
        *_from("redis", lambda: [*_of_the_flow(at), *_of_publication()]),
    ]


def render(gauges: list[Gauge]) -> str:
    """Prometheus' text; the figures of a family stand together, in the order they came."""
    lines, described = [], set()
    for gauge in gauges:
        if gauge.name not in described:
            described.add(gauge.name)
            lines.append(f"# HELP {gauge.name} {gauge.help_text}")
            lines.append(f"# TYPE {gauge.name} gauge")
        label = '{{{}="{}"}}'.format(*gauge.label) if gauge.label else ""
        lines.append(f"{gauge.name}{label} {gauge.value:.12g}")
    return "\n".join(lines) + "\n"


def _from(server: str, read: Callable[[], list[Gauge]]) -> Iterator[Gauge]:
    try:
        gauges = read()
    except (Error, redis.RedisError):
        gauges = None
    yield Gauge(
        name="turnpike_server_up",
        help_text="Whether a server answers the control plane",
        value=float(gauges is not None),
        label=("server", server),
    )
    yield from gauges or ()


def _of_the_books(at: datetime) -> Iterator[Gauge]:
    with platform_scope("metrics"):
        letters = DeadLetter.objects.filter(resolved_at=None).count()
        waived = sum_waived(since=at - DAY)
        run = ReconciliationRun.objects.order_by("-pk").first()
        rows = ReconciliationItem.objects.filter(state="open").values_list("kind")
        waiting = dict(rows.annotate(count=Count("pk")))
    yield Gauge(
        name="turnpike_dead_letters", help_text="Usage that could not be posted", value=letters
    )
    yield Gauge(
        name="turnpike_waived_share",
        help_text="Share of the charges of 24 hours that lay above their holds",
        value=waived.share,
    )
    if run is None:
        return
    yield Gauge(
        name="turnpike_reconciliation_age_seconds",
        help_text="Since the books were compared",
        value=max(0.0, (at - run.created_at).total_seconds()),
    )
    for finding in run.findings:
        yield Gauge(
            name="turnpike_reconciliation_differences",
            help_text="Differences that the last comparison of the books found, by row",
            value=finding["differences"],
            label=("check", finding["check"]),
        )
    for finding in run.findings:
        yield Gauge(
            name="turnpike_reconciliation_open",
            help_text="Differences that nobody has closed, by row",
            value=waiting.get(finding["check"], 0),
            label=("check", finding["check"]),
        )


def _of_the_flow(at: datetime) -> Iterator[Gauge]:
    queues = read_queues()
    oldest_ms = oldest_waiting_ms() or 0
    late = at.timestamp() - oldest_ms / 1_000 if oldest_ms else 0.0
    yield Gauge(
        name="turnpike_ingest_oldest_seconds",
        help_text="Age of the oldest usage event in the streams",
        value=max(0.0, late),
    )
    yield Gauge(
        name="turnpike_ingest_waiting",
        help_text="Usage events in the streams",
        value=queues.waiting,
    )
    oldest_at = queues.oldest_unposted_at
    yield Gauge(
        name="turnpike_unposted_oldest_seconds",
        help_text="Age of the oldest settled request that is not known to be posted",
        value=max(0.0, (at - oldest_at).total_seconds()) if oldest_at else 0.0,
    )
    gateways = read_gateways(at=at)
    yield Gauge(
        name="turnpike_gateways", help_text="Gateway workers that are alive", value=len(gateways)
    )
    yield Gauge(
        name="turnpike_gateways_blocked",
        help_text="Gateway workers that cannot write their journal",
        value=sum(not gateway.is_writable for gateway in gateways),
    )


def _of_publication() -> Iterator[Gauge]:
    shards = [policy.read_policy(shard) for shard in range(keyspace.SHARDS)]
    cold = sum(shard.version is None for shard in shards)
    is_open = sum(shard.is_open for shard in shards)
    for state, count in (
        ("open", is_open),
        ("fenced", len(shards) - cold - is_open),
        ("cold", cold),
    ):
        yield Gauge(
            name="turnpike_shards",
            help_text="Shards by whether they admit requests",
            value=count,
            label=("state", state),
        )


def _may_read(request: HttpRequest) -> bool:
    token = env().metrics_token
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if token and hmac.compare_digest(given.encode(), token.encode()):
        return True
    if "x-forwarded-for" in request.headers or "forwarded" in request.headers:
        return False
    try:
        return ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False
