"""Fixtures that everyone uses."""

import os
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis
import pytest
import redis
from django.conf import settings
from django.db.models import Model
from django.db.models.signals import pre_save
from django.utils import translation

from accounts.console.words import ACTIONS
from accounts.models import AuditEvent, Mail
from billing.models.differences import ReconciliationItem
from tests.support.redis_clients import connect
from tests.support.running import Platform, clean_environment, running_platform, state_directory
from turnpike.web.operators.ledger import CHECKS
from turnpike.web.operators.mail import KINDS

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("turnpike", deadline=None)
hypothesis.settings.load_profile("turnpike")

# Each test's client builds the middleware anew, which else would list all static files each time.
settings.SERVESTATIC_USE_FINDERS = settings.SERVESTATIC_USE_STATIC_ROOT = False
# A hash that is slow on purpose would be most of what makes a person here.
settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


# What pages call the kinds of these rows; and kinds of the tests' own.
NAMED: dict[type[Model], tuple[str, Collection[str]]] = {
    AuditEvent: ("action", ACTIONS),
    Mail: ("kind", KINDS),
    ReconciliationItem: ("kind", CHECKS),
}
MADE_UP = frozenset(("test", "tests"))


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
def _kinds_have_names() -> None:
    """What rows of these are is shown to people: each kind has a name in every language."""

    def check(sender: type[Model], instance: Any, **_rest: object) -> None:
        field, names = NAMED[sender]
        kind = getattr(instance, field)
        assert kind in names or kind in MADE_UP, f"{sender.__name__} {kind}: what is it called?"

    for model in NAMED:
        pre_save.connect(check, sender=model, weak=False)


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
