"""make_backup: all of PostgreSQL at one moment, in a directory with a manifest that says which.

The dump is taken in a snapshot that the manifest's own figures are read in, so the two agree. It
reads the rows of all tenants, which row level security allows to the platform alone.
"""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from django.db import connection, transaction
from django.db.migrations.recorder import MigrationRecorder
from psycopg import sql

from billing.models.ledger import LedgerTxn
from billing.models.usage import UsageEvent
from turnpike.control.scope import PLATFORM_SETTING, platform_scope
from turnpike.embedded.engines import EngineProblem, find_postgres
from turnpike.kernel import clock
from turnpike.kernel.errors import Conflict, InvalidInput

SCHEMA = 1
MANIFEST, DUMP = "manifest.json", "database.dump"
PARTIAL = ".partial"
READ_BYTES = 1024 * 1024
SHOWN_BYTES_MAX = 2_000
PROGRAM_SECONDS_MAX = 24 * 3_600


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a backup holds, and up to where. `events_until` is when its newest event came in."""

    schema: int
    version: str
    made_at: str
    postgres: str
    wal: str
    migrations: list[str]
    events: int
    last_event: str | None
    events_until: str | None
    last_posting: int | None
    rows: dict[str, int]
    dump_bytes: int
    dump_sha256: str


def make_backup(folder: Path) -> Manifest:
    """Dump the database into a new folder, which appears when it is whole."""
    if folder.exists():
        raise Conflict(f"{folder} exists: a backup gets a folder of its own.")
    partial = folder.with_name(folder.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700, parents=True)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT pg_export_snapshot(), pg_current_wal_lsn()::text")
        snapshot, wal = cursor.fetchone()
        facts = _facts()
        run_program(
            "pg_dump",
            *("--format=custom", "--compress=6", "--no-owner", "--no-privileges"),
            *("--enable-row-security", f"--snapshot={snapshot}", f"--file={partial / DUMP}"),
        )
    dump = partial / DUMP
    manifest = Manifest(
        schema=SCHEMA,
        version=running_version(),
        made_at=clock.utc_now().isoformat(),
        wal=wal,
        dump_bytes=dump.stat().st_size,
        dump_sha256=digest_of(dump),
        **facts,
    )
    (partial / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n")
    for path in (dump, partial / MANIFEST):
        path.chmod(0o600)
    partial.rename(folder)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a backup whose dump is what it says. Raises InvalidInput where it is not."""
    try:
        manifest = Manifest(**json.loads((folder / MANIFEST).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput(f"{folder} holds no backup that this version can read.") from error
    if manifest.schema != SCHEMA:
        raise InvalidInput(f"{folder} has schema {manifest.schema}; this version reads {SCHEMA}.")
    dump = folder / DUMP
    if not dump.exists() or digest_of(dump) != manifest.dump_sha256:
        raise InvalidInput(f"{dump} is not the file that the manifest describes.")
    return manifest


def run_program(name: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs against our database. Raises Conflict where it fails."""
    connection.ensure_connection()
    info = connection.connection.info
    environment = {
        **os.environ,
        "PGPASSWORD": info.password,
        "PGOPTIONS": f"-c {PLATFORM_SETTING}=on",
        "PGCONNECT_TIMEOUT": "10",
    }
    answer = subprocess.run(  # noqa: S603 -- PostgreSQL's own program, found by us
        [_find_program(name, major=info.server_version // 10_000), *arguments, "-d", info.dsn],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=PROGRAM_SECONDS_MAX,
    )
    if answer.returncode != 0:
        raise Conflict(f"{name} failed: {answer.stderr.strip()[-SHOWN_BYTES_MAX:]}")


def count_rows() -> dict[str, int]:
    """How many rows each table has, over all tenants; a partitioned one as a whole."""
    with platform_scope("backup"), connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY relname"
        )
        names = [name for (name,) in cursor.fetchall()]
        counts = {}
        for name in names:
            cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name)))
            (counts[name],) = cursor.fetchone()
    return counts


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(READ_BYTES):
            digest.update(part)
    return digest.hexdigest()


def running_version() -> str:
    """The version of this code."""
    try:
        return version("turnpike")
    except PackageNotFoundError:
        return "source"


def _facts() -> dict[str, Any]:
    with platform_scope("backup"):
        events = UsageEvent.objects.order_by("-ingested_at")
        newest = events.values_list("request_id", "ingested_at").first()
        applied = MigrationRecorder(connection).applied_migrations()
        return {
            "postgres": str(connection.connection.info.parameter_status("server_version")),
            "migrations": sorted(f"{app}.{name}" for app, name in applied),
            "rows": (rows := count_rows()),
            "events": rows["billing_usage_event"],
            "last_event": None if newest is None else str(newest[0]),
            "events_until": None if newest is None else newest[1].isoformat(),
            "last_posting": LedgerTxn.objects.order_by("-pk").values_list("pk", flat=True).first(),
        }


def _find_program(name: str, *, major: int) -> str:
    """A program at least as new as the server: the wheel's, the system's, or that on PATH."""
    found = [path for path in _programs(name) if path.exists()]
    for path in found:
        if _major_of(path) >= major:
            return str(path)
    raise EngineProblem(f"There is no {name} of PostgreSQL {major} or newer here: install one.")


def _programs(name: str) -> Sequence[Path]:
    on_path = shutil.which(name)
    places = [Path(on_path)] if on_path else []
    try:
        return [find_postgres().program.with_name(name), *places]
    except EngineProblem:
        return places


def _major_of(path: Path) -> int:
    answer = subprocess.run(  # noqa: S603 -- the same program
        [path, "--version"], check=False, capture_output=True, text=True, timeout=10
    )
    number = answer.stdout.rsplit(")", 1)[-1].strip().split(".")[0].split(" ")[0]
    return int(number) if number.isdigit() else 0
