"""Fixtures of the operator console's tests."""

import pytest
from django.test import Client

from accounts.models import User
from tests.billing.conftest import simulator_url
from tests.operator_console.operator_world import browser_of, make_operator
from tests.support.flush import allow_flush

# Tests with real transactions end with a flush of tables that refuse TRUNCATE.
allow_flush()

__all__ = ["simulator_url"]


@pytest.fixture
def operator(db: None) -> User:
    return make_operator(password="a long enough password")


@pytest.fixture
def browser(operator: User) -> Client:
    """The operator's browser, in which they have just proved who they are."""
    return browser_of(operator)
