"""The environment and the places that it names."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings

from turnpike.checks import problems_of
from turnpike.doctor.findings import Finding, fine, odd, wrong
from turnpike.env import Env
from turnpike.kernel.cluster_url import is_cluster_url


def look_at_configuration(variables: Env) -> Iterator[Finding]:
    """Unsafe settings, shared Redis databases, and a journal that cannot be written."""
    problems = list(problems_of(variables))
    for problem in problems:
        yield wrong("configuration", problem)
    if not problems:
        yield fine("configuration", "No unsafe setting.")
    yield from _look_at_redis_databases()
    yield _look_at_journal(variables.journal_dir)


def _look_at_redis_databases() -> Iterator[Finding]:
    truth, broker = _place(settings.REDIS_URL), _place(settings.CELERY_BROKER_URL)
    cache = _place(settings.CACHES["default"]["LOCATION"])
    if truth in (broker, cache):
        yield wrong(
            "redis databases",
            "The broker or the cache shares REDIS_URL's database: give it its own.",
        )


def _place(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    if is_cluster_url(url):
        return parts.netloc, "0"
    if parts.hostname:
        return f"{parts.hostname}:{parts.port}", parts.path.lstrip("/") or "0"
    return parts.path, parts.query.rpartition("=")[2] or "0"


def _look_at_journal(folder: Path) -> Finding:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        return wrong("journal", f"{folder} cannot be written: admitted requests could be lost.")
    if not folder.exists():
        return odd("journal", f"{folder} does not exist yet; the data plane will make it.")
    return fine("journal", f"{folder} can be written.")
