"""Fixtures of the accounting tests: real transactions, and a size for every day and for proofs."""

import os

import pytest

from tests.backups.conftest import elsewhere
from tests.support.flush import allow_flush

allow_flush()

__all__ = ["elsewhere"]


@pytest.fixture(scope="session")
def is_full() -> bool:
    """Whether the proofs run at the size that is said of them: `make test-billing`."""
    return os.environ.get("ACCOUNTING") == "full"
