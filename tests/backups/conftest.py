"""A second database, empty, that a backup is restored into."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import psycopg
import pytest
from django.db import connection
from psycopg import sql

from tests.billing.conftest import simulator_url
from tests.support.flush import allow_flush

allow_flush()

__all__ = ["simulator_url"]


@pytest.fixture
def elsewhere(transactional_db: None) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Enter it to have the empty database in place of the tests' own."""
    own = connection.settings_dict["NAME"]
    name = f"{own}_restored"
    connection.ensure_connection()
    info = connection.connection.info
    dsn = psycopg.conninfo.make_conninfo(info.dsn, password=info.password, dbname="postgres")
    with psycopg.connect(dsn, autocommit=True) as server:
        _drop(server, name)
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    @contextmanager
    def enter() -> Iterator[None]:
        connection.close()
        connection.settings_dict["NAME"] = name
        try:
            yield
        finally:
            connection.close()
            connection.settings_dict["NAME"] = own

    yield enter
    with psycopg.connect(dsn, autocommit=True) as server:
        _drop(server, name)


def _drop(server: psycopg.Connection, name: str) -> None:
    statement = sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name))
    try:
        # This way it ends an autovacuum at work there, which FORCE lets only a superuser do.
        server.execute(statement)
    except psycopg.errors.ObjectInUse:
        server.execute(statement + sql.SQL(" WITH (FORCE)"))
