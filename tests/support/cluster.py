"""A whole installation of a test's own, each process of which a test may break and bring back.

PostgreSQL, Valkey, simulator, gateway, ingest and control are children of the test process, with
short leases, so that what takes a minute in production takes seconds here.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
import redis

from tests.support.ports import free_port
from tests.support.redis_clients import connect
from tests.support.running import read_last_json, state_directory
from tests.support.servers import FIXED, FOREIGN, PASSWORD, ROOT
from tests.support.valkey_data import cut_log, wipe
from turnpike.embedded import engines, postgres, process, valkey
from turnpike.embedded.places import find_places

READY_SECONDS_MAX = 60
COMMAND_SECONDS_MAX = 60
# Long enough that a live worker on a busy machine, which may miss two beats, is not taken for dead.
LEASE_SECONDS = 6.0
TIMES = {
    "LEASE_MS": f"{LEASE_SECONDS * 1_000:.0f}",
    "BEAT_MS": "1000",
    "REAP_GRACE_MS": "1000",
    "CONFIRM_MS": "500",
    "RESEND_MS": "4000",
}
# From the end of a lease: the grace, and twice the distance of the reaper's rounds.
REAPED_SECONDS_MAX = LEASE_SECONDS + 1.0 + 2 * 5.0
INGEST_KINDS = ("command", "celery")


class Cluster:
    """The processes by name, and what a test does to them."""

    def __init__(self, folder: Path, *, workers: int = 2, extra: Mapping[str, str] | None = None):
        self.folder = folder
        self.workers = workers
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.simulator_port = free_port()
        self.simulator_url = f"http://127.0.0.1:{self.simulator_port}"
        self.journal_dir = folder / "journal"
        self._children: dict[str, tuple[process.Recipe, subprocess.Popen[bytes]]] = {}
        places = find_places(folder)
        roles = (postgres.SUPERUSER, postgres.OWNER, postgres.APP)
        self._postgres = postgres.EmbeddedPostgres(
            engine=engines.find_postgres(),
            places=places,
            passwords=dict.fromkeys(roles, PASSWORD),
            # Processes die here, the machine does not: the page cache outlives them all.
            settings=("fsync=off", "full_page_writes=off"),
        )
        self._valkey = valkey.EmbeddedValkey(engine=engines.find_valkey(), places=places)
        self.environment = self._environment(extra or {})

    def start(self, *, tenants: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Start everything but ingest; returns the API key of each tenant by its name."""
        self._postgres.prepare()
        self.start_postgres()
        self.start_valkey()
        self._wait("postgres", self._postgres.is_ready)
        self._postgres.make_roles()
        self.start_simulator()
        self.run("manage.py", "migrate", "--no-input", "--skip-checks", DATABASE_AS_OWNER="1")
        self._wait("valkey", self._valkey.is_ready)
        self._wait("simulator", lambda: answers(self.simulator_url + "/livez"))
        plan = {"simulator_url": self.simulator_url, "tenants": list(tenants)}
        keys: dict[str, str] = read_last_json(
            self.run("tests/support/cluster_tenants.py", json.dumps(plan))
        )
        self.start_gateway()
        self.start_control()
        self.wait_until_ready()
        return keys

    def stop(self) -> None:
        """Stop what still runs, the servers last."""
        for name in reversed(list(self._children)):
            recipe, child = self._children.pop(name)
            if child.poll() is None:
                child.send_signal(signal.SIGCONT)
            process.stop(child, recipe)

    # What runs.

    def start_postgres(self) -> None:
        """Start the database server; `is_postgres_ready` tells when it serves."""
        user = self._postgres.places.user
        self._spawn("postgres", self._postgres.command(), stop=signal.SIGINT, user=user)

    def start_valkey(self) -> None:
        """Start Valkey over whatever data there is."""
        self._valkey.prepare()
        self._spawn("valkey", self._valkey.command(), user=self._valkey.places.user)

    def start_simulator(self) -> None:
        """Start the upstream, with an empty record."""
        self._spawn_python("simulator", "-m", "simulator", "--port", str(self.simulator_port))

    def start_gateway(self) -> None:
        """Start the data plane with its workers."""
        self._spawn_python(
            "gateway",
            *("-m", "gunicorn", "proxy.app:app", "-k", "proxy.server.Worker"),
            *("-w", str(self.workers), "-b", f"127.0.0.1:{self.port}"),
            *("--graceful-timeout", "30", "--no-control-socket", "--preload"),
            *("--log-level", "warning"),
            grace_seconds=30,
        )

    def start_control(self) -> None:
        """Start the process that runs the periodic tasks at their shortest distances."""
        self._spawn_python("control", "tests/support/cluster_control.py")

    def start_ingest(self, name: str, *, kind: str = "command") -> None:
        """Start an ingest process: the command, or a Celery worker together with its beat."""
        if kind == "command":
            self._spawn_python(name, "manage.py", "ingest", "--skip-checks")
            return
        self._spawn_python(
            name,
            *("-m", "celery", "-A", "turnpike.celery", "worker", "-B", "-Q", "usage,celery"),
            *("--concurrency", "1", "--loglevel", "WARNING", "--without-gossip"),
            *("--without-mingle", "--without-heartbeat"),
        )

    def start_batch_worker(self, name: str) -> None:
        """Start a Celery worker together with its beat that carries on message batches."""
        (self.folder / "state").mkdir(exist_ok=True)  # beat keeps its last runs there
        self._spawn_python(
            name,
            *("-m", "celery", "-A", "turnpike.celery", "worker", "-B", "-Q", "batches"),
            *("--concurrency", "2", "--loglevel", "WARNING", "--without-gossip"),
            *("--without-mingle", "--without-heartbeat"),
        )

    def is_running(self, name: str) -> bool:
        """Whether a child lives."""
        return name in self._children and self._children[name][1].poll() is None

    def pid(self, name: str) -> int:
        """The pid of a child, the first of its group."""
        return self._children[name][1].pid

    def worker_pids(self) -> list[int]:
        """The gateway's workers."""
        return children_of(self.pid("gateway"))

    def worker_at(self, client_port: int) -> int:
        """The gateway worker that has a client's connection."""
        inode = socket_inode(server_port=self.port, client_port=client_port)
        for pid in self.worker_pids():
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if link.readlink().name == f"socket:[{inode}]":
                        return pid
        raise AssertionError(f"nobody has the connection from port {client_port}")

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a child's whole group and wait for its end."""
        _, child = self._children[name]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        child.wait(READY_SECONDS_MAX)

    def send_signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a child and do not wait."""
        self._children[name][1].send_signal(number)

    def stop_postgres(self, number: signal.Signals) -> None:
        """Ask the database server to stop, in the way that the signal means, and wait."""
        self.send_signal("postgres", number)
        self._children["postgres"][1].wait(READY_SECONDS_MAX)

    def stop_gateway(self) -> None:
        """Let running answers end, and stop the data plane."""
        recipe, child = self._children["gateway"]
        process.stop(child, recipe)

    def wipe_valkey(self) -> None:
        """Delete all data of a Valkey that is not running."""
        assert not self.is_running("valkey")
        wipe(self._valkey)

    def cut_valkey_log(self, byte_count: int) -> int:
        """Cut bytes off the end of a stopped Valkey's log, as a crash of its host would do."""
        assert not self.is_running("valkey")
        return cut_log(self._valkey, byte_count)

    def is_valkey_ready(self) -> bool:
        """Whether Valkey answers."""
        return self._valkey.is_ready()

    def is_postgres_ready(self) -> bool:
        """Whether the database server takes connections."""
        return self._postgres.is_ready()

    def wait_until_ready(self) -> None:
        """Wait until the gateway can admit requests."""
        self._wait("gateway", lambda: answers(self.base_url + "/readyz"))

    # What is asked.

    def run(self, *arguments: str, **extra: str) -> str:
        """Run a Python program of the project; returns what it printed."""
        answer = subprocess.run(
            [sys.executable, *arguments],
            env={**self.environment, **extra},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS_MAX,
        )
        assert answer.returncode == 0, f"{arguments}: {answer.stdout}{answer.stderr}"
        return answer.stdout

    def reconcile(self) -> list[dict[str, Any]]:
        """What `manage.py reconcile` found to differ."""
        answer = subprocess.run(
            [sys.executable, "manage.py", "reconcile", "--json", "--skip-checks"],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS_MAX,
        )
        assert answer.returncode in (0, 1), answer.stderr
        checks: list[dict[str, Any]] = read_last_json(answer.stdout)["checks"]
        assert checks
        return [check for check in checks if check["differences"]]

    def redis(self) -> redis.Redis:
        """A client of the data plane's Valkey."""
        return connect(self.environment["REDIS_URL"])

    def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Rows of a query that sees all tenants."""
        url = self._postgres.url(postgres.SUPERUSER)
        with psycopg.connect(url, autocommit=True, connect_timeout=20) as connection:
            return connection.execute(query, arguments).fetchall()

    def billed(self) -> list[dict[str, Any]]:
        """What the simulator billed, oldest first."""
        with urllib.request.urlopen(self.simulator_url + "/_billed", timeout=30) as answer:
            rows: list[dict[str, Any]] = json.loads(answer.read())
        return rows

    def log(self, name: str, *, lines: int = 40) -> str:
        """The end of what a child wrote."""
        path = self.folder / f"{name}.log"
        text = path.read_text(errors="replace") if path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        inherited = {name: value for name, value in inherited.items() if "COV" not in name}
        return {
            **inherited,
            **FIXED,
            **TIMES,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "platform"), str(ROOT)]),
            "DATABASE_URL": self._postgres.url(postgres.APP),
            "DATABASE_OWNER_URL": self._postgres.url(postgres.OWNER),
            "REDIS_URL": self._valkey.url(),
            # As Celery writes a socket: it reads this variable itself, before our settings.
            "CELERY_BROKER_URL": self._valkey.url(1)
            .replace("unix://", "redis+socket://")
            .replace("?db=", "?virtual_host="),
            "CACHE_URL": self._valkey.url(2),
            "STATE_DIR": str(self.folder / "state"),
            "JOURNAL_DIR": str(self.journal_dir),
            "METRICS_DIR": str(self.folder / "metrics"),
            "SIMULATOR_CONTROL": "1",
            "LOG_LEVEL": "WARNING",
            **extra,
        }

    def _spawn_python(self, name: str, *arguments: str, grace_seconds: float = 10.0) -> None:
        self._spawn(name, [sys.executable, *arguments], grace_seconds=grace_seconds)

    def _spawn(
        self,
        name: str,
        command: list[str],
        *,
        stop: signal.Signals = signal.SIGTERM,
        user: Any = None,
        grace_seconds: float = 10.0,
    ) -> None:
        assert not self.is_running(name), f"{name} runs already"
        environment = {"PATH": os.defpath, "TZ": "UTC"} if user else self.environment
        recipe = process.Recipe(
            name=name,
            command=command,
            environment=environment,
            user=user,
            stop_signal=stop,
            grace_seconds=grace_seconds,
        )
        with (self.folder / f"{name}.log").open("ab") as log:
            self._children[name] = recipe, process.spawn(recipe, output=log)

    def _wait(self, name: str, is_ready: Callable[[], bool]) -> None:
        is_up = process.wait_until(
            lambda: not self.is_running(name) or is_ready(), seconds_max=READY_SECONDS_MAX
        )
        assert is_up, f"{name} did not start:\n{self.log(name)}"
        assert self.is_running(name), f"{name} ended:\n{self.log(name)}"


@contextlib.contextmanager
def running_cluster(
    *,
    tenants: Sequence[Mapping[str, Any]],
    workers: int = 2,
    kind: type[Cluster] = Cluster,
    **extra: str,
) -> Iterator[tuple[Cluster, dict[str, str]]]:
    """A cluster that serves, and its tenants' keys; everything is gone afterwards."""
    with state_directory() as folder:
        cluster = kind(folder, workers=workers, extra=extra)
        try:
            yield cluster, cluster.start(tenants=tenants)
        finally:
            cluster.stop()


def children_of(pid: int) -> list[int]:
    """The living children of a process."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split() if process.started_at_ticks(int(child))]


def socket_inode(*, server_port: int, client_port: int) -> str:
    """The server's end of a loopback connection, as /proc names it."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ports = [int(field.partition(":")[2], 16) for field in fields[1:3]]
        if ports == [server_port, client_port]:
            return fields[9]
    raise AssertionError(f"there is no connection from port {client_port}")


def answers(url: str) -> bool:
    """Whether a GET gets 200."""
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
