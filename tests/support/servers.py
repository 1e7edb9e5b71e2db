"""A pytest plugin: PostgreSQL and Valkey for the tests, and the environment that settings read.

Loaded with ``-p`` so that it runs before Django's settings do. The first process starts servers on
sockets of its own, unless TEST_DATABASE_URL and TEST_REDIS_URL name others; xdist's workers inherit
its environment and take three Redis databases each: data, broker, cache.
"""

import atexit
import base64
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [entry for entry in (str(ROOT / "platform"), str(ROOT)) if entry not in sys.path]

from turnpike.embedded import engines, postgres, process, valkey  # noqa: E402
from turnpike.embedded.places import find_places  # noqa: E402

READY_SECONDS_MAX = 60
REDIS_DATABASES = 64
DATABASES_PER_WORKER = 3
FOLDER_PREFIX = "tt-"  # short: the path of a unix socket may have 107 bytes
PASSWORD = "password-of-the-tests"
TEST_DATABASE_URL, TEST_REDIS_URL = "TEST_DATABASE_URL", "TEST_REDIS_URL"
TEST_CLUSTER_URL = "TEST_CLUSTER_URL"
TEST_APP_DATABASE_URL = "TEST_APP_DATABASE_URL"

FIXED = {
    "DJANGO_SETTINGS_MODULE": "turnpike.settings",
    "SECRET_KEY": "the-secret-key-of-the-tests-0123456789-abcdef",
    "KEY_PEPPERS": "p1:the-pepper-of-the-tests-0123456789-abcdef",
    "MASTER_KEYS": "m1:" + base64.urlsafe_b64encode(bytes(range(32))).decode(),
    "PUBLIC_BASE_URL": "http://127.0.0.1:8000",
    "METRICS_TOKEN": "the-metrics-token-of-the-tests-0123456789",
    "LOG_JSON": "0",
}
# What a developer's shell may hold and the tests must not see.
FOREIGN = ("ANTHROPIC_API_KEY", "DATABASE_AS_OWNER", "SIMULATOR_CONTROL", "TRUSTED_PROXIES")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(args: list[str]) -> Generator[None, object, object]:
    """Before any settings are read: servers once, then this process's share of them."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None and not {"--help", "-h", "--version", "-V"} & set(args):
        _start_missing_servers()
    _export(worker=int((worker or "gw0").removeprefix("gw")))
    return (yield)


def redis_database(url: str, number: int) -> str:
    """The same server's database of that number."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"unix://{parts.path}?db={number}"
    return parts._replace(path=f"/{number}").geturl()


def first_redis_database(url: str) -> int:
    """The number of the database that a URL names."""
    parts = urlsplit(url)
    text = parts.query.removeprefix("db=") if parts.scheme == "unix" else parts.path.lstrip("/")
    return int(text or 0)


def _export(*, worker: int) -> None:
    for name in FOREIGN:
        os.environ.pop(name, None)
    os.environ.update(FIXED)
    # Not the working copy's: a developer's platform is none of the tests' business.
    state_dir = Path(tempfile.gettempdir()) / f"{FOLDER_PREFIX}state-{os.getpid()}"
    atexit.register(shutil.rmtree, state_dir, ignore_errors=True)
    os.environ.update(
        STATE_DIR=str(state_dir),
        JOURNAL_DIR=str(state_dir / "journal"),
        METRICS_DIR=str(state_dir / "metrics"),
        # What tests start finds our packages too, also where pytest was called without make.
        PYTHONPATH=os.pathsep.join([str(ROOT / "platform"), str(ROOT)]),
    )
    redis_url = os.environ.get(TEST_REDIS_URL, "redis://127.0.0.1:1/0")
    first = first_redis_database(redis_url) + DATABASES_PER_WORKER * worker
    # A cluster has one database, so one process may have it, and it holds no queue and no cache.
    os.environ["REDIS_URL"] = os.environ.get(TEST_CLUSTER_URL) or redis_database(redis_url, first)
    os.environ["CELERY_BROKER_URL"] = redis_database(redis_url, first + 1)
    os.environ["CACHE_URL"] = redis_database(redis_url, first + 2)
    database_url = os.environ.get(TEST_DATABASE_URL, "")
    os.environ["DATABASE_URL"] = os.environ["DATABASE_OWNER_URL"] = database_url


def _start_missing_servers() -> None:
    wanted = [name for name in (TEST_DATABASE_URL, TEST_REDIS_URL) if not os.environ.get(name)]
    if not wanted:
        return
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    folder.chmod(0o711)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if TEST_DATABASE_URL in wanted:
        _start_postgres(folder)
    if TEST_REDIS_URL in wanted:
        _start_valkey(folder)


def _start_postgres(folder: Path) -> None:
    roles = (postgres.SUPERUSER, postgres.OWNER, postgres.APP)
    places = find_places(folder)
    server = postgres.EmbeddedPostgres(
        engine=engines.find_postgres(),
        places=places,
        passwords=dict.fromkeys(roles, PASSWORD),
        # The data need not survive the machine, only the tests.
        settings=("fsync=off", "synchronous_commit=off", "full_page_writes=off"),
    )
    server.prepare()
    _run(
        process.Recipe(
            name="postgres",
            command=server.command(),
            environment={"PATH": os.defpath},
            user=places.user,
            stop_signal=signal.SIGINT,
        ),
        is_ready=server.is_ready,
    )
    server.make_roles()
    os.environ[TEST_DATABASE_URL] = server.url(postgres.OWNER)
    os.environ[TEST_APP_DATABASE_URL] = server.url(postgres.APP)


def _start_valkey(folder: Path) -> None:
    places = find_places(folder)
    server = valkey.EmbeddedValkey(
        engine=engines.find_valkey(),
        places=places,
        settings=(f"databases={REDIS_DATABASES}", "appendonly=no", "save="),
    )
    server.prepare()
    _run(
        process.Recipe(
            name="valkey",
            command=server.command(),
            environment={"PATH": os.defpath},
            user=places.user,
        ),
        is_ready=server.is_ready,
    )
    os.environ[TEST_REDIS_URL] = server.url()


def _run(recipe: process.Recipe, *, is_ready: Callable[[], bool]) -> None:
    child = process.spawn(recipe, output=subprocess.DEVNULL)
    atexit.register(process.stop, child, recipe)
    is_up = process.wait_until(
        lambda: child.poll() is not None or is_ready(), seconds_max=READY_SECONDS_MAX
    )
    if not is_up or child.poll() is not None:
        raise pytest.UsageError(f"{recipe.name} did not start: {' '.join(recipe.command)}")
