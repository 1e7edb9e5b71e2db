"""Whose rows a transaction may see: the settings that PostgreSQL's row level security reads.

Policies compare `tenant_id` with `tp.tenant`, or let everything through while `tp.platform` is
`on`. Both are set for a transaction and put back afterwards, so a pooled connection carries nothing
over.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction

logger = logging.getLogger(__name__)

TENANT_SETTING = "tp.tenant"
PLATFORM_SETTING = "tp.platform"


@contextmanager
def tenant_scope(tenant: int) -> Iterator[None]:
    """A transaction in which only one tenant's rows exist."""
    with (
        transaction.atomic(),
        _setting(TENANT_SETTING, str(tenant)),
        _setting(PLATFORM_SETTING, ""),
    ):
        yield


@contextmanager
def platform_scope(reason: str) -> Iterator[None]:
    """A transaction that sees the rows of all tenants; the reason is for the reader and the log."""
    assert reason
    logger.debug("scope.platform", extra={"reason": reason})
    with transaction.atomic(), _setting(PLATFORM_SETTING, "on"):
        yield


def rls_sql(table: str, *, column: str = "tenant_id", is_shared: bool = False) -> str:
    """The SQL that puts a table under row level security, its owner included.

    `is_shared`: rows without a tenant (the platform's own) are visible to everyone.
    """
    shared = f" OR {column} IS NULL" if is_shared else ""
    condition = (
        f"{column} = (SELECT nullif(current_setting('{TENANT_SETTING}', true), '')::bigint)"
        f" OR (SELECT current_setting('{PLATFORM_SETTING}', true)) = 'on'"
    )
    return (
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;"
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY;"
        f"CREATE POLICY tenant_rows ON {table}"
        f" USING ({condition}{shared}) WITH CHECK ({condition});"
    )


@contextmanager
def _setting(name: str, value: str) -> Iterator[None]:
    before = _swap(name, value)
    # Whatever rolls the transaction back to where the scope began takes the setting with it.
    yield
    if not connection.needs_rollback:
        _swap(name, before)


def _swap(name: str, value: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(current_setting(%s, true), '')", [name])
        before: str = cursor.fetchone()[0]
        cursor.execute("SELECT set_config(%s, %s, true)", [name, value])
    return before
