"""What `manage.py up` starts, in which order and with which environment."""

import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from signal import Signals

from turnpike.embedded import engines
from turnpike.embedded.engines import EngineProblem
from turnpike.embedded.places import find_places
from turnpike.embedded.postgres import APP, OWNER, EmbeddedPostgres
from turnpike.embedded.process import Recipe
from turnpike.embedded.state import StateDir
from turnpike.embedded.supervisor import Action, Service, Stage, Task
from turnpike.embedded.valkey import EmbeddedValkey
from turnpike.env import ROOT, Env

WEB_WORKERS = 2
WEB_GRACE_SECONDS = 30
TASK_PROCESSES = 2
DATABASE_POOL_MAX = 8
PROBE_SECONDS_MAX = 1.0
SECRET_NAMES = ("SECRET_KEY", "KEY_PEPPERS", "MASTER_KEYS", "METRICS_TOKEN")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The stages of one start, and the environment that all children share."""

    stages: tuple[Stage, ...]
    environment: Mapping[str, str]
    names: tuple[str, ...]  # of the servers that are embedded, for the message at the start


def make_plan(*, env: Env, state: StateDir, is_system_first: bool, is_json: bool) -> Plan:
    """Decide what to start. Raises EngineProblem when a port is taken or an engine is missing."""
    secrets = state.secrets()
    environment = _base_environment(env, state, secrets, is_json=is_json)
    check_port_is_free(env.bind_host, env.port, variable="PORT")
    check_port_is_free("127.0.0.1", simulator_port(env), variable="SIMULATOR_PORT")
    servers: list[Service] = []
    actions: list[Stage] = []
    if not env.database_url:
        postgres = _postgres(state, secrets, is_system_first=is_system_first)
        servers.append(_postgres_service(postgres))
        actions.append((Action(name="roles", run=postgres.make_roles),))
        environment["DATABASE_URL"] = postgres.url(APP)
        environment["DATABASE_OWNER_URL"] = postgres.url(OWNER)
    if not os.environ.get("REDIS_URL"):
        valkey = _valkey(state, is_system_first=is_system_first)
        servers.append(_valkey_service(valkey))
        environment["REDIS_URL"] = valkey.url()
    children = _Children(env=env, environment=environment)
    stages: list[Stage] = [
        servers,
        *actions,
        # What checks would find, bootstrap finds a moment later.
        (
            children.simulator(),
            children.manage("migrate", "--no-input", "--skip-checks", is_owner=True),
        ),
        # Together, because most of each is loading: the web is ready when bootstrap has published.
        (children.manage("bootstrap"), children.worker(), children.web()),
        (children.beat(),),
    ]
    names = tuple(service.recipe.name for service in servers)
    return Plan(stages=tuple(stages), environment=environment, names=names)


def simulator_port(env: Env) -> int:
    """Where the simulator listens."""
    return env.simulator_port or env.port + 1


def check_port_is_free(host: str, port: int, *, variable: str) -> None:
    """Raises EngineProblem when somebody listens there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise EngineProblem(
                f"Port {port} on {host} is taken or not ours ({error.strerror}): stop what listens "
                f"there, or set {variable} to another one."
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Children:
    """The recipes of the processes that are Turnpike itself."""

    env: Env
    environment: Mapping[str, str]

    def manage(self, *arguments: str, is_owner: bool = False) -> Task:
        extra = {"DATABASE_AS_OWNER": "1"} if is_owner else {}
        command = [str(ROOT / "manage.py"), *arguments]
        return Task(recipe=self._recipe(arguments[0], command, extra=extra))

    def simulator(self) -> Service:
        port = str(simulator_port(self.env))
        recipe = self._recipe("simulator", ["-m", "simulator", "--port", port])
        return Service(recipe=recipe, is_ready=_listens("127.0.0.1", int(port)))

    def worker(self) -> Service:
        command = [
            *(
                "-m",
                "celery",
                "-A",
                "turnpike.celery",
                "worker",
                "--queues",
                "celery,usage,batches,webhooks",
            ),
            *("--concurrency", str(TASK_PROCESSES), "--loglevel", "WARNING"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ]
        recipe = self._recipe("worker", command, grace_seconds=30)
        return Service(recipe=recipe)

    def web(self) -> Service:
        command = [
            *("-m", "gunicorn", "turnpike.asgi:app", "--worker-class", "proxy.server.Worker"),
            *("--workers", str(WEB_WORKERS), "--bind", f"{self.env.bind_host}:{self.env.port}"),
            *("--graceful-timeout", str(WEB_GRACE_SECONDS), "--no-control-socket", "--preload"),
            *("--log-level", "warning"),
        ]
        recipe = self._recipe(
            "web",
            command,
            extra={"DATABASE_POOL_MAX": str(DATABASE_POOL_MAX)},
            grace_seconds=WEB_GRACE_SECONDS + 5,
        )
        return Service(recipe=recipe, is_ready=_answers(self.env.bind_host, self.env.port))

    def beat(self) -> Service:
        command = ["-m", "celery", "-A", "turnpike.celery", "beat", "--loglevel", "WARNING"]
        return Service(recipe=self._recipe("beat", [*command, "--pidfile="]))

    def _recipe(
        self,
        name: str,
        arguments: list[str],
        *,
        extra: Mapping[str, str] | None = None,
        grace_seconds: float = 10.0,
    ) -> Recipe:
        return Recipe(
            name=name,
            command=[sys.executable, *arguments],
            environment={**self.environment, **(extra or {})},
            grace_seconds=grace_seconds,
        )


def _base_environment(
    env: Env, state: StateDir, secrets: Mapping[str, str], *, is_json: bool
) -> dict[str, str]:
    chosen = {
        "STATE_DIR": str(state.path),
        "JOURNAL_DIR": os.environ.get("JOURNAL_DIR") or str(state.path / "journal"),
        "METRICS_DIR": os.environ.get("METRICS_DIR") or str(state.path / "metrics"),
        "PORT": str(env.port),
        "SIMULATOR_PORT": str(simulator_port(env)),
        "PUBLIC_BASE_URL": os.environ.get("PUBLIC_BASE_URL") or f"http://127.0.0.1:{env.port}",
        **{name: os.environ.get(name) or secrets[name] for name in SECRET_NAMES},
    }
    for name in ("JOURNAL_DIR", "METRICS_DIR"):
        Path(chosen[name]).mkdir(mode=0o700, parents=True, exist_ok=True)
    return {
        **os.environ,
        **chosen,
        "LOG_JSON": "1" if is_json else "0",
        "DJANGO_SETTINGS_MODULE": "turnpike.settings",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "platform"), str(ROOT)]),
        "PYTHONUNBUFFERED": "1",
    }


def _postgres(
    state: StateDir, secrets: Mapping[str, str], *, is_system_first: bool
) -> EmbeddedPostgres:
    passwords = {
        name.removeprefix("password:"): value
        for name, value in secrets.items()
        if name.startswith("password:")
    }
    server = EmbeddedPostgres(
        engine=engines.find_postgres(is_system_first=is_system_first),
        places=find_places(state.path),
        passwords=passwords,
    )
    server.prepare()
    return server


def _postgres_service(server: EmbeddedPostgres) -> Service:
    recipe = Recipe(
        name="postgres",
        command=server.command(),
        environment={"PATH": os.defpath, "TZ": "UTC"},
        user=server.places.user,
        stop_signal=Signals.SIGINT,
        grace_seconds=20,
    )
    return Service(recipe=recipe, is_ready=server.is_ready)


def _valkey(state: StateDir, *, is_system_first: bool) -> EmbeddedValkey:
    server = EmbeddedValkey(
        engine=engines.find_valkey(is_system_first=is_system_first), places=find_places(state.path)
    )
    server.prepare()
    return server


def _valkey_service(server: EmbeddedValkey) -> Service:
    recipe = Recipe(
        name="valkey",
        command=server.command(),
        environment={"PATH": os.defpath},
        user=server.places.user,
    )
    return Service(recipe=recipe, is_ready=server.is_ready)


def _listens(host: str, port: int) -> Callable[[], bool]:
    def listens() -> bool:
        try:
            with socket.create_connection((host, port), timeout=PROBE_SECONDS_MAX):
                return True
        except OSError:
            return False

    return listens


def _answers(host: str, port: int) -> Callable[[], bool]:
    """Whether the platform says that it is ready."""
    name = f"[{host}]" if ":" in host else host
    url = f"http://{name.replace('0.0.0.0', '127.0.0.1')}:{port}/readyz"  # noqa: S104

    def answers() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=PROBE_SECONDS_MAX) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    return answers
