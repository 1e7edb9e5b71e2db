"""The servers that the test run itself stands on."""

import os

import psycopg
import redis
from django.conf import settings

from tests.support.ports import free_port


def test_the_redis_client_and_the_settings_share_one_database(redis_client: redis.Redis) -> None:
    redis_client.set("here", "1")

    assert redis.Redis.from_url(settings.REDIS_URL).get("here") == b"1"


def test_tests_run_as_a_role_that_row_level_security_binds() -> None:
    with psycopg.connect(os.environ["TEST_DATABASE_URL"], dbname="postgres") as connection:
        row = connection.execute(
            "SELECT rolsuper, rolbypassrls, rolcreatedb FROM pg_roles WHERE rolname = current_user"
        ).fetchone()

    assert row == (False, False, True)


def test_a_free_port_is_not_given_twice_nor_one_that_a_connection_could_take() -> None:
    ports = [free_port() for _ in range(50)]

    assert len(set(ports)) == 50
    assert max(ports) < 32_768  # where Linux begins to take ports for outgoing connections
