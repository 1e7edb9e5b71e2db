"""Lets Django empty the test database although append-only tables refuse it, and in a moment.

After a test with real transactions Django truncates all tables, which costs the same however few
rows there are: files for a hundred tables and their indexes are made anew. Here the rows are
deleted, and only where there are any; after a test that wrote many, tables are truncated as before.
The triggers that refuse either are switched off for it, in its own transaction, by their owner.
"""

from collections.abc import Sequence
from typing import Any

from django.db import connection
from django.db.backends.postgresql.operations import DatabaseOperations

from turnpike.control.scope import PLATFORM_SETTING

_BYTES_MAX = 16 * 1024 * 1024
_GUARDED = """
SELECT c.relname, t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgtype & 32 = 32 ORDER BY 1, 2
"""
# What a table's files hold, its partitions' too: this also sees rows that a policy would hide.
_FILLED = """
SELECT c.relname, sum(pg_relation_size(part.relid))::bigint
FROM pg_class c CROSS JOIN LATERAL (
    SELECT relid FROM pg_partition_tree(c.oid) UNION SELECT c.oid
) part
WHERE c.relname = ANY(%s) AND c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
GROUP BY 1 HAVING sum(pg_relation_size(part.relid)) > 0 ORDER BY 1
"""


_plain_flush = DatabaseOperations.sql_flush


def allow_flush() -> None:
    """Make Django's flush step around the triggers that refuse it, in this test process."""
    DatabaseOperations.sql_flush = _flush  # type: ignore[assignment, method-assign]


def _flush(
    self: DatabaseOperations, style: Any, tables: Sequence[str], **options: Any
) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(_FILLED, [list(tables)])
        filled = cursor.fetchall()
    if sum(size for _, size in filled) > _BYTES_MAX or any(options.values()):
        return _truncation(self, style, tables, **options)
    return _deletion([table for table, _ in filled])


def _deletion(tables: Sequence[str]) -> list[str]:
    if not tables:
        return []
    # In one statement, so that no order of the tables matters to what refers to what.
    deletes = ", ".join(
        f'd{number} AS (DELETE FROM "{table}")' for number, table in enumerate(tables)
    )
    return [
        f"SELECT set_config('{PLATFORM_SETTING}', 'on', true)",
        *(f'ALTER TABLE "{table}" DISABLE TRIGGER USER' for table in tables),
        f"WITH {deletes} SELECT 1",
        "SET CONSTRAINTS ALL IMMEDIATE",
        *(f'ALTER TABLE "{table}" ENABLE TRIGGER USER' for table in tables),
    ]


def _truncation(
    operations: DatabaseOperations, style: Any, tables: Sequence[str], **options: Any
) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(_GUARDED)
        guards = cursor.fetchall()
    return [
        *(f'ALTER TABLE "{table}" DISABLE TRIGGER "{guard}"' for table, guard in guards),
        *_plain_flush(operations, style, tables, **options),
        *(f'ALTER TABLE "{table}" ENABLE TRIGGER "{guard}"' for table, guard in guards),
    ]
