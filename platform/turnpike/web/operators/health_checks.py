"""What the health page looks at: each check says how it is, and what to do about it."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import redis
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils.translation import gettext as _

from billing.models.differences import ReconciliationItem
from billing.models.state import STATE_ID, PlatformState
from billing.models.upkeep import ReconciliationRun
from billing.models.usage import DeadLetter
from billing.queries.everywhere import sum_waived
from billing.queries.gateways import GatewayFacts, read_gateways
from billing.services.standing import oldest_waiting_ms
from turnpike.control import formats, policy
from turnpike.control.redis import redis_client, text_of
from turnpike.env import env
from turnpike.kernel import clock, keyspace

OK, WARN, DANGER = "ok", "warn", "danger"
SKEW_US_MAX = 1_000_000
DISK_FREE_WARN, DISK_FREE_DANGER = 0.15, 0.05
STREAM_LATE = timedelta(seconds=60)
JOURNAL_LATE = timedelta(seconds=60)
WAIVED_SHARE_MAX = 0.001
DAY = timedelta(days=1)
MEBIBYTE = 1_048_576


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line: how a thing stands, in the reader's language. `action` names what may be done."""

    title: str
    tone: str
    value: str
    note: str = ""
    action: str = ""
    route: str = ""


def look_at_servers(*, at: datetime) -> list[Check]:
    """PostgreSQL, its migrations and clock; Redis, its data and clock; disk; version."""
    return [
        *_safely(_("PostgreSQL"), _postgres),
        *_safely(_("Redis"), _redis),
        _disk(),
        Check(title=_("Version"), tone=OK, value=_version()),
    ]


def look_at_flow(*, at: datetime, gateways: list[GatewayFacts]) -> list[Check]:
    """Gateways, journals, streams, publication, fence and fallback."""
    return [
        _gateways(gateways),
        _journals(gateways, at),
        *_safely(_("Usage stream"), lambda: _stream(at)),
        *_safely(_("Publication"), _publication),
        _fallback(gateways),
    ]


def look_at_books(*, at: datetime) -> list[Check]:
    """Money that was waived, usage that could not be posted, and the last reconciliation."""
    waived = sum_waived(since=at - DAY)
    is_too_much = waived.share > WAIVED_SHARE_MAX
    letters = DeadLetter.objects.filter(resolved_at=None).count()
    run = ReconciliationRun.objects.order_by("-pk").first()
    waiting = ReconciliationItem.objects.filter(state="open").count()
    return [
        Check(
            title=_("Waived in 24 hours"),
            tone=DANGER if is_too_much else OK,
            value=f"{formats.money(waived.waived_nano)} · {waived.share:.3%}",
            note=_("Used beyond what was held; the operator's cost. Alarm above 0.1 %."),
            route="operator-doubts",
            action=_("Show these requests") if waived.waived_nano else "",
        ),
        Check(
            title=_("Dead letters"),
            tone=DANGER if letters else OK,
            value=formats.number(letters),
            note=_("Usage that could not be posted waits for a decision."),
            route="operator-jobs",
            action=_("Decide") if letters else "",
        ),
        Check(
            title=_("Reconciliation"),
            tone="" if run is None else DANGER if run.differences else OK,
            value=_("Not yet") if run is None else formats.number(run.differences),
            note=""
            if run is None
            else _("Differences; %(ago)s.") % {"ago": formats.ago(run.created_at)},
            route="operator-ledger",
            action=_("Open the ledger"),
        ),
        Check(
            title=_("Open differences"),
            tone=WARN if waiting else OK,
            value=formats.number(waiting),
            note=_("Each waits until somebody closes it with a reason."),
            route="operator-differences",
            action=_("Decide") if waiting else "",
        ),
    ]


def gateways_or_none(*, at: datetime) -> list[GatewayFacts] | None:
    """The live gateways; None where Redis is away."""
    try:
        return read_gateways(at=at)
    except redis.RedisError:
        return None


def _safely(title: str, look: Callable[[], Iterator[Check]]) -> list[Check]:
    try:
        return list(look())
    except (Error, redis.RedisError) as error:
        return [
            Check(title=title, tone=DANGER, value=_("Away"), note=type(error).__name__),
        ]


def _postgres() -> Iterator[Check]:
    begun_us = clock.now_us()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('server_version'), pg_database_size(current_database()),"
            " (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
        )
        number, size, now_us = cursor.fetchone()
    took_us = clock.now_us() - begun_us
    yield Check(
        title=_("PostgreSQL"),
        tone=OK,
        value=str(number).split(" ")[0],
        note=_("%(size)s MB, answers in %(time)s.")
        % {"size": formats.number(size // MEBIBYTE), "time": formats.duration(took_us)},
    )
    executor = MigrationExecutor(connection)
    missing = len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    skew = _clock(_("Clock of PostgreSQL"), int(now_us), ours_us=begun_us + took_us)
    yield Check(
        title=_("Migrations"),
        tone=DANGER if missing else OK,
        value=_("All applied") if not missing else formats.number(missing),
        note=_("Run manage.py migrate.") if missing else "",
    )
    yield skew


def _redis() -> Iterator[Check]:
    client = redis_client()
    server: Any = client.info("server")
    memory: Any = client.info("memory")
    yield Check(
        title=str(server.get("server_name", "Redis")).capitalize(),
        tone=OK,
        value=str(server.get("valkey_version") or server["redis_version"]),
        note=_("%(size)s MB used.") % {"size": formats.number(memory["used_memory"] // MEBIBYTE)},
    )
    try:
        is_kept = text_of(client.config_get("appendonly").get("appendonly", "")) == "yes"
        policy_name = text_of(client.config_get("maxmemory-policy").get("maxmemory-policy", ""))
    except redis.ResponseError:
        is_kept, policy_name = True, "noeviction"
    is_fine = is_kept and policy_name == "noeviction"
    yield Check(
        title=_("What Redis keeps"),
        tone=OK if is_fine else DANGER,
        value=_("Everything, on disk") if is_fine else _("Not everything"),
        note="" if is_fine else "appendonly yes, maxmemory-policy noeviction",
    )
    seconds, micros = client.time()
    theirs_us = int(seconds) * 1_000_000 + int(micros)
    yield _clock(_("Clock of Redis"), theirs_us, ours_us=clock.now_us())


def _clock(title: str, theirs_us: int, *, ours_us: int) -> Check:
    skew_us = abs(ours_us - theirs_us)
    return Check(
        title=title,
        tone=DANGER if skew_us > SKEW_US_MAX else OK,
        value=formats.duration(skew_us),
        note=_("Away from ours."),
    )


def _disk() -> Check:
    place = env().state_dir if env().state_dir.exists() else Path("/")
    usage = shutil.disk_usage(place)
    free = usage.free / usage.total
    tone = DANGER if free < DISK_FREE_DANGER else WARN if free < DISK_FREE_WARN else OK
    return Check(
        title=_("Disk"),
        tone=tone,
        value=f"{free:.0%}",
        note=_("%(size)s GB free.") % {"size": formats.number(usage.free // (1_024 * MEBIBYTE))},
    )


def _gateways(gateways: list[GatewayFacts]) -> Check:
    blocked = sum(not gateway.is_writable for gateway in gateways)
    is_fine = bool(gateways) and not blocked
    return Check(
        title=_("Gateways"),
        tone=OK if is_fine else DANGER,
        value=formats.number(len(gateways)),
        note=_("%(count)s cannot write the journal and admit nobody.") % {"count": blocked}
        if blocked
        else _("Alive now."),
    )


def _journals(gateways: list[GatewayFacts], at: datetime) -> Check:
    waiting = sum(gateway.unconfirmed for gateway in gateways)
    starts = [item.oldest_started_at for item in gateways if item.oldest_started_at is not None]
    oldest = min(starts, default=None)
    is_late = oldest is not None and at - oldest > JOURNAL_LATE
    return Check(
        title=_("Oldest unconfirmed journal line"),
        tone=WARN if is_late else OK,
        value="–" if oldest is None else formats.ago(oldest),
        note=_("%(count)s requests are not known to be posted.") % {"count": waiting},
        action=_("Repair missed postings") if is_late else "",
        route="sweep" if is_late else "",
    )


def _stream(at: datetime) -> Iterator[Check]:
    client = redis_client()
    pipeline = client.pipeline(transaction=False)
    for shard in range(keyspace.SHARDS):
        pipeline.xlen(keyspace.usage_stream(shard))
    length = sum(pipeline.execute())
    oldest_ms = oldest_waiting_ms() or 0
    oldest = clock.datetime_of_us(oldest_ms * 1_000) if oldest_ms else None
    is_late = oldest is not None and at - oldest > STREAM_LATE
    yield Check(
        title=_("Usage stream"),
        tone=DANGER if is_late else OK,
        value=formats.number(length),
        note=_("Nothing waits.")
        if oldest is None
        else _("The oldest came %(ago)s.") % {"ago": formats.ago(oldest)},
        action=_("Open the jobs") if is_late else "",
        route="operator-jobs" if is_late else "",
    )


def _publication() -> Iterator[Check]:
    shards = [policy.read_policy(shard) for shard in range(keyspace.SHARDS)]
    cold = sum(shard.version is None for shard in shards)
    fenced = sum(shard.version is not None and not shard.is_open for shard in shards)
    state = PlatformState.objects.filter(pk=STATE_ID).first()
    yield Check(
        title=_("Publication"),
        tone=DANGER if cold else OK,
        value=f"{len(shards) - cold - fenced} / {len(shards)}",
        note=_("Shards that are open, at version %(version)s.")
        % {"version": state.policy_version if state else 0},
        action=_("Publish everything"),
        route="publish",
    )
    yield Check(
        title=_("Fence"),
        tone=WARN if fenced else OK,
        value=_("Closed for %(count)s shards") % {"count": fenced} if fenced else _("Open"),
        note=_("Redis lost its data %(count)s times so far.")
        % {"count": max(0, (state.epoch if state else 1) - 1)},
    )


def _fallback(gateways: list[GatewayFacts]) -> Check:
    admitted = sum(gateway.fallback_admitted for gateway in gateways)
    return Check(
        title=_("Fallback"),
        tone=WARN if admitted else OK,
        value=formats.number(admitted),
        note=_("Requests that were let in while Redis was away, since the gateways began."),
    )


def _version() -> str:
    try:
        return version("turnpike")
    except PackageNotFoundError:
        return _("from source")
