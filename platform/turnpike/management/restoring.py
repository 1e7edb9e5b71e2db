"""restore_backup: a backup becomes the truth, and the data plane is told to begin anew.

What Redis still holds of usage is posted first, because the backup may be older than it. Then Redis
is emptied and every version jumps far ahead: no gateway can take a cached snapshot, and no wallet,
for one of the restored platform, and all of them report behind the fence what they have under way.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import redis
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.models import F

from accounts.models import Tenant
from billing.ingest.consumer import Consumer, consumer_name
from billing.locks import lock_state
from billing.models.state import STATE_ID, PlatformState
from billing.models.usage import DeadLetter
from billing.services.differences import keep_differences
from billing.services.findings import finding_of
from billing.services.publication import publish_everything
from billing.services.reconciliation import reconcile_and_keep
from billing.services.upkeep import sweep_unposted
from billing.services.upstream_reports import compare_reports
from turnpike.control.redis import redis_client, servers, text_of
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, keyspace
from turnpike.kernel.errors import Conflict, InvalidInput
from turnpike.management.backups import DUMP, Manifest, count_rows, read_manifest, run_program

# Beyond every version that was published after the backup was made.
VERSIONS_AHEAD = 1_000_000
EPOCHS_AHEAD = 1_000
LOCK_SECONDS_MAX = 10
REPORTS = "upstreams"
DAY = timedelta(days=1)
# As far back as one question to an upstream reaches.
GAP_MAX = timedelta(days=30)
DRAIN_SECONDS_MAX = 600.0
UNLINKED_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a restore did. Requests of the gap are in no backup; gateways report what they have.

    `gap` is what the upstreams' usage reports of its days count and the restored books do not.
    """

    backup: dict[str, Any]
    gap_from: str
    gap_until: str
    posted_from_redis: int
    dead_letters: int
    redis_keys_removed: int
    epoch: int
    is_good: bool
    gap: list[dict[str, str]] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)


def restore_backup(folder: Path, *, is_forced: bool, at: datetime) -> Restored:
    """Put a backup into the database and bring the platform back into service on it.

    Refuses a database that has tables unless it is forced. All checks come before any change.
    """
    manifest = read_manifest(folder)
    _refuse_newer(manifest)
    try:
        redis_client().ping()
    except redis.RedisError as error:
        raise Conflict("Redis is away; a restore has to empty it.") from error
    if _has_tables():
        if not is_forced:
            raise Conflict("The database is not empty; --force replaces everything in it.")
        _drop_everything()
    run_program(
        "pg_restore",
        *("--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"),
        *("--enable-row-security", str(folder / DUMP)),
    )
    _refuse_missing_rows(manifest)
    call_command("migrate", interactive=False, verbosity=0)
    return _begin_anew(manifest, at=at)


def _begin_anew(manifest: Manifest, *, at: datetime) -> Restored:
    with platform_scope("restore"):
        lock_state()
        PlatformState.objects.filter(pk=STATE_ID).update(
            epoch=F("epoch") + EPOCHS_AHEAD, policy_version=F("policy_version") + VERSIONS_AHEAD
        )
        Tenant.objects.update(policy_version=F("policy_version") + VERSIONS_AHEAD)
        letters = DeadLetter.objects.count()
    posted = _post_what_redis_holds()
    with platform_scope("restore"):
        letters = DeadLetter.objects.count() - letters
    removed = sum(1 for _ in _empty_redis())
    published = publish_everything()
    run = reconcile_and_keep(actor="restore")
    gap_from = manifest.events_until or manifest.made_at
    return Restored(
        backup=asdict(manifest),
        gap_from=gap_from,
        gap_until=at.isoformat(),
        posted_from_redis=posted,
        dead_letters=letters,
        redis_keys_removed=removed,
        epoch=0 if published is None else published.epoch,
        # What upstreams count beyond the books is the gap: it is no mistake of the restored books.
        is_good=not any(row["differences"] for row in run.findings if row["check"] != REPORTS),
        gap=_gap_of(datetime.fromisoformat(gap_from), at),
        checks=list(run.findings),
    )


def _gap_of(since: datetime, until: datetime) -> list[dict[str, str]]:
    """What upstreams' reports of the gap's days say otherwise; each waits as a difference, too."""
    first = max(since, until - GAP_MAX).replace(hour=0, minute=0, second=0, microsecond=0)
    last = until.replace(hour=0, minute=0, second=0, microsecond=0) + DAY
    compared = compare_reports(since=first, until=last)
    found = finding_of(REPORTS, compared.differences, covered=compared.covered)
    keep_differences([found], at=until)
    return [dict(row.evidence) for row in compared.differences]


def _post_what_redis_holds() -> int:
    """Events that were delivered and not yet posted, or posted after the backup was made."""
    consumer = Consumer(redis_client(), name=consumer_name(), claim_idle_ms=0)
    until_seconds = clock.monotonic_seconds() + DRAIN_SECONDS_MAX
    posted = consumer.drain(until_seconds=until_seconds)
    sweep_unposted(after_ms=0)
    return posted + consumer.drain(until_seconds=until_seconds)


def _empty_redis() -> Iterator[str]:
    """Remove what was published, admitted and counted; yields the names of what is gone.

    Streams stay: what could not be posted in time is posted later. Looks at components wait there.
    """
    kept = {keyspace.usage_stream(shard) for shard in range(keyspace.SHARDS)} | {keyspace.LOOKS}
    for server in servers():
        names = server.scan_iter(match="tp:*", count=UNLINKED_AT_ONCE)
        while part := list(islice(names, UNLINKED_AT_ONCE)):
            pipeline = server.pipeline(transaction=False)
            gone = [name for name in map(text_of, part) if name not in kept]
            for name in gone:
                pipeline.unlink(name)
            pipeline.execute()
            yield from gone


def _refuse_newer(manifest: Manifest) -> None:
    known = {f"{app}.{name}" for app, name in MigrationLoader(None).disk_migrations}
    unknown = sorted(set(manifest.migrations) - known)
    if unknown:
        raise InvalidInput(f"The backup was made by a newer version: it has {unknown[0]}.")


def _refuse_missing_rows(manifest: Manifest) -> None:
    found = count_rows()
    wrong = sorted(name for name, rows in manifest.rows.items() if found.get(name) != rows)
    if wrong:
        raise Conflict(
            f"{wrong[0]} has {found.get(wrong[0], 0)} rows, not {manifest.rows[wrong[0]]}: the "
            "database holds an incomplete restore and must not be used."
        )


def _has_tables() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT 1 FROM pg_tables WHERE schemaname = 'public')")
        return bool(cursor.fetchone()[0])


def _drop_everything() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, false)", [f"{LOCK_SECONDS_MAX}s"])
        cursor.execute("DROP SCHEMA public CASCADE")
        cursor.execute("CREATE SCHEMA public")
