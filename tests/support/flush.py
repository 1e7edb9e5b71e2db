"""Lets Django empty the test database although append-only tables refuse TRUNCATE.

After a test with real transactions Django truncates all tables. The triggers that refuse it are
switched off for that one statement, in its own transaction, by the tables' owner.
"""

from collections.abc import Sequence
from typing import Any

from django.db import connection
from django.db.backends.postgresql.operations import DatabaseOperations

_GUARDED = """
SELECT c.relname, t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgtype & 32 = 32 ORDER BY 1, 2
"""


_plain_flush = DatabaseOperations.sql_flush


def allow_flush() -> None:
    """Make Django's flush step around the triggers that refuse TRUNCATE, in this test process."""
    DatabaseOperations.sql_flush = _flush  # type: ignore[assignment, method-assign]


def _flush(
    self: DatabaseOperations, style: Any, tables: Sequence[str], **options: Any
) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(_GUARDED)
        guards = cursor.fetchall()
    return [
        *(f'ALTER TABLE "{table}" DISABLE TRIGGER "{guard}"' for table, guard in guards),
        *_plain_flush(self, style, tables, **options),
        *(f'ALTER TABLE "{table}" ENABLE TRIGGER "{guard}"' for table, guard in guards),
    ]
