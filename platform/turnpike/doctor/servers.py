"""PostgreSQL and Redis: whether they answer, and whether they keep what they are given."""

from collections.abc import Iterator
from typing import Any

from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from redis import RedisError, ResponseError
from redis.cluster import RedisCluster

from turnpike.control.redis import redis_client, servers, text_of
from turnpike.doctor.findings import Finding, fine, odd, wrong
from turnpike.kernel import clock, keyspace

POSTGRES_VERSION_MIN = 150_000
REDIS_MAJOR_MIN = 7
CLOCK_SKEW_US_MAX = 1_000_000


def look_at_postgres() -> Iterator[Finding]:
    """Version, the rights of our role, migrations, and its clock."""
    try:
        yield from _look_at_postgres()
    except Error as error:
        yield wrong("postgres", f"It does not answer: {str(error).splitlines()[0]}")


def look_at_redis() -> Iterator[Finding]:
    """Version, persistence, eviction, its clock, and whether the data plane has been told."""
    try:
        yield from _look_at_redis()
    except RedisError as error:
        yield wrong("redis", f"It does not answer: {error}")


def _look_at_postgres() -> Iterator[Finding]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('server_version_num')::int, current_user, rolsuper,"
            " rolbypassrls, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
            " FROM pg_roles WHERE rolname = current_user"
        )
        version, role, is_super, is_above_rls, now_us = cursor.fetchone()
    if version < POSTGRES_VERSION_MIN:
        yield wrong("postgres", f"Version {version // 10_000} is too old: 15 or newer is needed.")
    else:
        yield fine("postgres", f"Version {version // 10_000} answers.")
    if is_super or is_above_rls:
        yield wrong(
            "postgres role",
            f"{role} passes over row level security: use a role that is neither superuser nor"
            " BYPASSRLS, and DATABASE_OWNER_URL for migrations.",
        )
    else:
        yield fine("postgres role", f"{role} is bound by row level security.")
    yield _compare_clocks("postgres clock", now_us)
    executor = MigrationExecutor(connection)
    missing = len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    if missing:
        yield wrong("migrations", f"{missing} not applied: run `manage.py migrate`.")
    else:
        yield fine("migrations", "All applied.")


def _look_at_redis() -> Iterator[Finding]:
    for server in servers():
        yield from _look_at_server(server)
    yield from _look_at_cluster()
    yield from _look_at_publication()


def _look_at_server(client: Any) -> Iterator[Finding]:
    server: Any = client.info("server")
    version = str(server["redis_version"])
    if int(version.split(".")[0]) < REDIS_MAJOR_MIN:
        yield wrong("redis", f"Version {version} is too old: Redis 7 or Valkey is needed.")
    else:
        yield fine("redis", f"{server.get('server_name', 'redis')} {version} answers.")
    yield from _look_at_persistence(client)
    seconds, micros = client.time()
    yield _compare_clocks("redis clock", int(seconds) * 1_000_000 + int(micros))


def _look_at_cluster() -> Iterator[Finding]:
    client: Any = redis_client()
    if not isinstance(client, RedisCluster):
        return
    primaries, replicas = len(client.get_primaries()), len(client.get_replicas())
    if replicas < primaries:
        yield wrong(
            "redis cluster",
            f"{primaries} primaries have {replicas} replicas: a loss of one would lose its data.",
        )
    else:
        yield fine("redis cluster", f"{primaries} primaries, {replicas} replicas.")


def _look_at_publication() -> Iterator[Finding]:
    client = redis_client()
    cold = sum(
        not client.hexists(keyspace.policy(shard), keyspace.GLOBAL_VERSION)
        for shard in range(keyspace.SHARDS)
    )
    if cold:
        yield wrong("publication", f"{cold} of {keyspace.SHARDS} shards are cold; is beat running?")
    else:
        yield fine("publication", "Every shard has a policy.")
    workers = client.zcard(keyspace.GATEWAYS)
    if workers:
        yield fine("data plane", f"{workers} workers are beating.")
    else:
        yield odd("data plane", "No worker is beating.")


def _look_at_persistence(client: Any) -> Iterator[Finding]:
    try:
        values = {
            name: text_of(client.config_get(name).get(name, ""))
            for name in ("appendonly", "appendfsync", "maxmemory-policy")
        }
    except ResponseError:
        yield odd("redis persistence", "The server does not show its settings; check them there.")
        return
    if values["maxmemory-policy"] != "noeviction":
        yield wrong("redis eviction", "maxmemory-policy must be noeviction: holds could vanish.")
    else:
        yield fine("redis eviction", "Nothing is evicted.")
    if values["appendonly"] != "yes":
        yield wrong("redis persistence", "appendonly must be yes: limits and holds must survive.")
    elif values["appendfsync"] == "no":
        yield odd(
            "redis persistence", "appendfsync is no: a crash of the machine may lose minutes."
        )
    else:
        yield fine("redis persistence", f"appendonly, fsync {values['appendfsync']}.")


def _compare_clocks(subject: str, theirs_us: int) -> Finding:
    skew_us = abs(clock.now_us() - theirs_us)
    if skew_us > CLOCK_SKEW_US_MAX:
        return wrong(subject, f"It differs from ours by {skew_us / 1_000_000:.1f} s: run NTP.")
    return fine(subject, f"It differs from ours by {skew_us // 1_000} ms.")
