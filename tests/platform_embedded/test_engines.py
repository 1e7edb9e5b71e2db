"""The embedded servers themselves: how they are made, reached and kept apart from foreign data."""

import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis

from turnpike.embedded import engines, process
from turnpike.embedded.engines import Engine, EngineProblem, check_stamp, stamp_engine
from turnpike.embedded.places import RUN_PATH_BYTES_MAX, find_places, server_user
from turnpike.embedded.postgres import APP, OWNER, SUPERUSER, EmbeddedPostgres
from turnpike.embedded.process import Recipe
from turnpike.embedded.valkey import EmbeddedValkey

PASSWORDS = {SUPERUSER: "one-secret", OWNER: "two: /secret", APP: "three@secret"}


@pytest.fixture
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that the servers' user can reach, as ./var usually is."""
    path = tmp_path_factory.mktemp("state")
    for folder in (path, path.parent, path.parent.parent):
        folder.chmod(0o711)
    return path


@contextmanager
def running(server: EmbeddedPostgres | EmbeddedValkey, *, stop: signal.Signals) -> Iterator[int]:
    server.prepare()
    recipe = Recipe(
        name="server",
        command=server.command(),
        environment={"PATH": os.defpath},
        user=server.places.user,
        stop_signal=stop,
    )
    child = process.spawn(recipe, output=subprocess.DEVNULL)
    try:
        assert process.wait_until(server.is_ready, seconds_max=30)
        yield child.pid
    finally:
        process.stop(child, recipe)


def test_postgres_asks_for_passwords_and_gives_no_role_too_much(state_dir: Path) -> None:
    server = EmbeddedPostgres(
        engine=engines.find_postgres(), places=find_places(state_dir), passwords=PASSWORDS
    )
    with running(server, stop=signal.SIGINT):
        server.make_roles()
        server.make_roles()
        with psycopg.connect(server.url(SUPERUSER)) as connection:
            rows = connection.execute(
                "SELECT rolname, rolsuper, rolbypassrls, rolcreatedb, rolcreaterole FROM pg_roles"
                " WHERE rolname LIKE 'turnpike\\_%' ORDER BY rolname"
            ).fetchall()
        assert rows == [(APP, False, False, False, False), (OWNER, False, False, True, False)]
        with psycopg.connect(server.url(OWNER)) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.url(APP), password="wrong")

    with running(server, stop=signal.SIGINT), psycopg.connect(server.url(OWNER)) as connection:
        assert connection.execute("SELECT number FROM kept").fetchone() == (1,)

    stamp = json.loads((state_dir / "servers" / "postgres" / "engine.json").read_text())
    assert stamp["kind"] == "postgresql"


def test_valkey_keeps_what_it_wrote_through_a_kill(state_dir: Path) -> None:
    server = EmbeddedValkey(engine=engines.find_valkey(), places=find_places(state_dir))
    with running(server, stop=signal.SIGTERM) as pid, redis.Redis.from_url(server.url()) as client:
        client.set("kept", "1")
        assert client.execute_command("WAITAOF", 1, 0, 5_000) == [1, 0]
        policy = client.config_get("maxmemory-policy")
        assert policy == {"maxmemory-policy": "noeviction"}
        os.kill(pid, signal.SIGKILL)

    with running(server, stop=signal.SIGTERM), redis.Redis.from_url(server.url()) as client:
        assert client.get("kept") == b"1"


def test_data_of_another_major_version_is_not_touched(tmp_path: Path) -> None:
    old = Engine(kind="postgresql", version="17.9", program=tmp_path, folders=())
    new = Engine(kind="postgresql", version="18.6", program=tmp_path, folders=())
    stamp_engine(tmp_path, old)

    with pytest.raises(EngineProblem, match=r"made by postgresql 17\.9; postgresql 18\.6 cannot"):
        check_stamp(tmp_path, new)


@pytest.mark.parametrize(
    ("kind", "version", "message"),
    [
        ("valkey", "9.1.1", "valkey 9.1.1 is older"),
        ("redis", "9.9.0", "would start redis 9.9.0"),
    ],
)
def test_redis_data_is_not_given_to_an_older_or_other_engine(
    tmp_path: Path, kind: str, version: str, message: str
) -> None:
    stamp_engine(tmp_path, Engine(kind="valkey", version="9.1.2", program=tmp_path, folders=()))

    with pytest.raises(EngineProblem, match=message):
        check_stamp(tmp_path, Engine(kind=kind, version=version, program=tmp_path, folders=()))

    check_stamp(tmp_path, Engine(kind="valkey", version="9.1.3", program=tmp_path, folders=()))


def test_a_deep_state_directory_gets_a_short_and_private_socket_folder(state_dir: Path) -> None:
    deep = state_dir / ("d" * 60) / ("e" * 60)

    places = find_places(deep)

    try:
        assert len(os.fsencode(places.run)) <= RUN_PATH_BYTES_MAX
        assert stat.S_IMODE(places.run.stat().st_mode) == 0o700
        assert find_places(deep).run == places.run
    finally:
        places.run.rmdir()


def test_an_engine_out_of_reach_is_copied_with_its_libraries(tmp_path: Path) -> None:
    places = find_places(tmp_path)
    hidden = tmp_path / "hidden"
    (hidden / "install" / "bin").mkdir(parents=True)
    (hidden / "libs").mkdir()
    program = hidden / "install" / "bin" / "server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o644)  # nobody may execute it here
    (hidden / "libs" / "lib.so").touch()
    engine = Engine(
        kind="valkey",
        version="9.9.9",
        program=program,
        folders=(hidden / "install", hidden / "libs"),
    )

    runnable = places.runnable(engine)

    assert runnable == places.home / "engines" / "valkey-9.9.9" / "install" / "bin" / "server"
    assert (runnable.parents[2] / "libs" / "lib.so").exists()
    assert server_user() is None or places.user is not None
