"""Fixtures of the accounts tests."""

import pytest
import redis

from accounts.models import Tenant
from tests.accounts.factories import make_tenant
from tests.support.flush import allow_flush

# Tests with real transactions end with a flush of tables that refuse TRUNCATE.
allow_flush()


@pytest.fixture
def tenant(db: None) -> Tenant:
    """A tenant, in a transaction that is rolled back."""
    return make_tenant()


@pytest.fixture
def stranger(db: None) -> Tenant:
    """Another tenant."""
    return make_tenant("Stranger")


@pytest.fixture
def live_tenant(redis_client: redis.Redis, transactional_db: None) -> Tenant:
    """A tenant whose changes are committed, and so published."""
    return make_tenant()
