"""Fixtures that everyone uses."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import hypothesis
import pytest
import redis
from django.conf import settings
from django.db.models.signals import pre_save
from django.utils import translation

from accounts.console.words import ACTIONS
from accounts.models import AuditEvent
from tests.support.redis_clients import connect
from tests.support.running import Platform, clean_environment, running_platform, state_directory

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("turnpike", deadline=None)
hypothesis.settings.load_profile("turnpike")

# Each test's client builds the middleware anew, which else would list all static files each time.
settings.SERVESTATIC_USE_FINDERS = settings.SERVESTATIC_USE_STATIC_ROOT = False
# A hash that is slow on purpose would be most of what makes a person here.
settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True)
def _no_language_left() -> None:
    """A page that a test before asked for leaves its language in the thread, as Django does."""
    translation.deactivate()


@pytest.fixture
def redis_client() -> Iterator[redis.Redis]:
    """The worker's own Redis database, empty; the same one as settings.REDIS_URL."""
    client = connect(os.environ["REDIS_URL"])
    client.flushdb()
    yield client
    client.close()


@pytest.fixture(autouse=True, scope="session")
def _audited_actions_have_names() -> None:
    """What is written into an audit log is read by people, and looked for by what it is called."""

    def check(instance: AuditEvent, **_rest: object) -> None:
        assert instance.action in ACTIONS, f"{instance.action}: give it words in console/words.py"

    pre_save.connect(check, sender=AuditEvent, weak=False)


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        """The time it shows."""
        return self.at

    def now_us(self) -> int:
        """The time it shows in microseconds since 1970."""
        return int(self.at.timestamp()) * 1_000_000 + self.at.microsecond

    def advance(self, **parts: float) -> datetime:
        """Move forward, for example by ``minutes=5``; returns the new time."""
        self.at += timedelta(**parts)
        return self.at


@pytest.fixture
def clock() -> Clock:
    """A clock of one's own, at a quiet moment in the middle of a month."""
    return Clock(datetime(2026, 11, 21, 10, 30, tzinfo=UTC))


@pytest.fixture(autouse=True)
def _empty_cache(request: pytest.FixtureRequest) -> None:
    """No test that has a database finds what another one cached."""
    if {"db", "transactional_db"} & set(request.fixturenames):
        with redis.Redis.from_url(os.environ["CACHE_URL"], socket_timeout=5) as client:
            client.flushdb()


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """The whole platform, started once by `manage.py up`; the simulator obeys x-simulator."""
    with (
        state_directory() as state_dir,
        running_platform(state_dir, clean_environment(state_dir)) as platform,
    ):
        yield platform
