"""The embedded servers themselves: how they are made, reached and kept apart from foreign data."""

import dataclasses
import json
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis

from tests.support.running import state_directory
from turnpike.embedded import engines, process
from turnpike.embedded.engines import Engine, EngineProblem, check_stamp, stamp_engine
from turnpike.embedded.places import RUN_PATH_BYTES_MAX, find_places, server_user
from turnpike.embedded.postgres import APP, OWNER, SUPERUSER, EmbeddedPostgres
from turnpike.embedded.process import Recipe
from turnpike.embedded.valkey import EmbeddedValkey

PASSWORDS = {SUPERUSER: "one-secret", OWNER: "two: /secret", APP: "three@secret"}


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """A directory that the servers' user can reach, as ./var usually is."""
    with state_directory() as path:
        yield path


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


def test_an_engine_out_of_reach_is_copied_with_its_libraries(
    state_dir: Path, tmp_path: Path
) -> None:
    found = engines.find_postgres()
    hidden = tmp_path / "site-packages"  # below pytest's own folder, which nobody else may enter
    for folder in found.folders:
        shutil.copytree(folder, hidden / folder.name, symlinks=True)
    tmp_path.chmod(0o700)
    program = hidden / found.program.relative_to(found.folders[0].parent)
    engine = dataclasses.replace(
        found, program=program, folders=tuple(hidden / folder.name for folder in found.folders)
    )
    places = find_places(state_dir)

    runnable = places.runnable(engine)

    if server_user() is None:
        assert runnable == program
    else:
        assert runnable.is_relative_to(places.home / "engines" / f"postgresql-{found.version}")
    answer = subprocess.run(
        [runnable.with_name("initdb"), "--version"],
        capture_output=True,
        text=True,
        check=True,
        **(places.user.popen_arguments() if places.user else {}),
    )
    assert found.version in answer.stdout


def test_data_goes_where_the_servers_user_can_reach_it(state_dir: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    elsewhere = state_dir / "system"

    places = find_places(tmp_path / "clone" / "var", system_home=elsewhere)

    link = tmp_path / "clone" / "var" / "servers"
    assert link.resolve() == places.home
    if server_user() is None:
        assert not link.is_symlink()
    else:
        assert places.home.parent == elsewhere
        assert places.home.name.startswith("clone-")
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
