"""Fixtures of the accounting tests: real transactions, and a size for every day and for proofs."""

import os

import pytest

from tests.backups.conftest import elsewhere
from tests.support.flush import allow_flush

allow_flush()

__all__ = ["elsewhere"]
IS_FULL = os.environ.get("ACCOUNTING") == "full"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """At full size the longest one first, so that two workers end at about the same time."""
    if IS_FULL:
        items.sort(key=lambda item: "test_year" not in item.nodeid)


@pytest.fixture(scope="session")
def is_full() -> bool:
    """Whether the proofs run at the size that is said of them: `make test-billing`."""
    return IS_FULL
