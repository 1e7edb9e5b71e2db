"""What the application's role may do: own nothing, and never rewrite history."""

import logging
from urllib.parse import unquote, urlsplit

from django.db import connections
from psycopg import sql

from turnpike.env import env

logger = logging.getLogger(__name__)

# Rows that are added and never changed. Partitions carry their parent's name and a suffix.
APPEND_ONLY = (
    "billing_ledger_txn",
    "billing_ledger_entry",
    "billing_usage_event",
    "billing_invoice_file",
    "billing_rating_difference",
    "billing_usage_review",
    "accounts_auditevent",
)


def grant_to_app(*, using: str = "default") -> None:
    """After migrations: give DATABASE_URL's role what it needs, if another role owns the tables."""
    owner, app = _role(env().database_owner_url), _role(env().database_url)
    if env().database_as_owner and app and owner != app:
        grant(app, using=using)


def grant(role: str, *, using: str = "default") -> None:
    """Let a role read and write all tables, but only add to those that are append-only."""
    to = sql.Identifier(role)
    with connections[using].cursor() as cursor:
        for statement in (
            "GRANT USAGE ON SCHEMA public TO {}",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {}",
            "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {}",
            "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {}",
            "ALTER DEFAULT PRIVILEGES IN SCHEMA public"
            " GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {}",
            "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO {}",
        ):
            cursor.execute(sql.SQL(statement).format(to))
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        names = [name for (name,) in cursor.fetchall() if is_append_only(name)]
        for name in names:
            cursor.execute(
                sql.SQL("REVOKE UPDATE, DELETE, TRUNCATE ON {} FROM {}").format(
                    sql.Identifier(name), to
                )
            )
    logger.info("grants.made", extra={"role": role, "append_only": len(names)})


def is_append_only(table: str) -> bool:
    """Whether history lies in this table or partition."""
    return any(table == name or table.startswith(f"{name}_") for name in APPEND_ONLY)


def _role(url: str) -> str:
    return unquote(urlsplit(url).username or "")
