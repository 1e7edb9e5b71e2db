"""Embedded PostgreSQL: made once, run as a foreground child, reached by password on a socket."""

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from turnpike.embedded.engines import Engine, EngineProblem, check_stamp, stamp_engine
from turnpike.embedded.places import Places

SUPERUSER = "turnpike"
OWNER = "turnpike_owner"
APP = "turnpike_app"
DATABASE = "turnpike"
CONNECTIONS_MAX = 100
INITDB_SECONDS_MAX = 120
PROBE_SECONDS_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedPostgres:
    """One PostgreSQL cluster; `passwords` has one for each of the three roles."""

    engine: Engine
    places: Places
    passwords: Mapping[str, str]
    settings: tuple[str, ...] = ()

    @property
    def data(self) -> Path:
        """The folder of the cluster and its stamp."""
        return self.places.home / "postgres"

    def prepare(self) -> None:
        """Make the cluster if there is none. Raises EngineProblem when another engine made it."""
        folder = self.places.data("postgres")
        check_stamp(folder, self.engine)
        if not (folder / "cluster" / "PG_VERSION").exists():
            self._initdb(folder / "cluster")
        stamp_engine(folder, self.engine)

    def command(self) -> list[str]:
        """The command of the server in the foreground."""
        options = {
            "unix_socket_directories": str(self.places.run),
            "listen_addresses": "",
            "max_connections": str(CONNECTIONS_MAX),
        }
        arguments = [f"{name}={value}" for name, value in options.items()]
        listed = [part for text in [*arguments, *self.settings] for part in ("-c", text)]
        return [str(self._program("postgres")), "-D", str(self.data / "cluster"), *listed]

    def is_ready(self) -> bool:
        """Whether the server accepts connections."""
        answer = subprocess.run(  # noqa: S603 -- the engine's own program
            [self._program("pg_isready"), "-q", "-h", str(self.places.run)],
            check=False,
            timeout=PROBE_SECONDS_MAX,
        )
        return answer.returncode == 0

    def url(self, role: str, *, database: str = DATABASE) -> str:
        """The connection URL of a role."""
        password, run = quote(self.passwords[role], safe=""), quote(str(self.places.run), safe="")
        return f"postgresql://{role}:{password}@/{database}?host={run}"

    def make_roles(self) -> None:
        """Make the two roles and the database; neither role is a superuser or passes over RLS."""
        with psycopg.connect(self.url(SUPERUSER, database="postgres"), autocommit=True) as server:
            _make_role(server, OWNER, self.passwords[OWNER], may="CREATEDB")
            _make_role(server, APP, self.passwords[APP], may="NOCREATEDB")
            found = server.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]
            ).fetchone()
            if found is None:
                server.execute(
                    sql.SQL("CREATE DATABASE {} OWNER {}").format(
                        sql.Identifier(DATABASE), sql.Identifier(OWNER)
                    )
                )

    def _program(self, name: str) -> Path:
        return self.places.runnable(self.engine).with_name(name)

    def _initdb(self, cluster: Path) -> None:
        user = self.places.user
        descriptor, name = tempfile.mkstemp(dir=self.places.run)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(self.passwords[SUPERUSER])
            if user is not None:
                os.chown(name, user.uid, user.gid)
            answer = subprocess.run(  # noqa: S603 -- the engine's own program
                self._initdb_command(cluster, password_file=name),
                check=False,
                capture_output=True,
                text=True,
                timeout=INITDB_SECONDS_MAX,
                **(user.popen_arguments() if user else {}),
            )
        finally:
            Path(name).unlink()
        if answer.returncode != 0:
            raise EngineProblem(f"initdb failed: {answer.stderr.strip() or answer.stdout.strip()}")

    def _initdb_command(self, cluster: Path, *, password_file: str) -> Sequence[str]:
        # The built-in locale provider came with PostgreSQL 17; C.UTF-8 orders the same everywhere.
        locale = ["--locale-provider=builtin"] if self.engine.major >= 17 else []
        return [
            str(self._program("initdb")),
            *("-D", str(cluster), "-U", SUPERUSER, "-E", "UTF8", "--locale=C.UTF-8", *locale),
            *("--auth-local=scram-sha-256", "--auth-host=scram-sha-256"),
            f"--pwfile={password_file}",
            "--no-instructions",
        ]


def _make_role(server: psycopg.Connection, role: str, password: str, *, may: str) -> None:
    found = server.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone()
    server.execute(
        sql.SQL("{} ROLE {} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE {} PASSWORD {}").format(
            sql.SQL("ALTER" if found else "CREATE"),
            sql.Identifier(role),
            sql.SQL(may),
            sql.Literal(password),
        )
    )
