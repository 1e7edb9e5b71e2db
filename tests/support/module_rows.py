"""Rows that all tests of a module share: made once, and rolled back behind the last of them."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import transaction
from pytest_django import DjangoDbBlocker


@contextmanager
def kept_rows(blocker: DjangoDbBlocker) -> Iterator[None]:
    """A transaction around a module's tests, which begin and undo savepoints of their own in it.

    For fixtures of a module that use `django_db_setup`: rows are made inside of this. No test of
    the module may need real transactions.
    """
    with blocker.unblock():
        outer = transaction.atomic()
        # As Django's own test case says of its transactions: what must be outermost may be in it.
        outer._from_testcase = True  # type: ignore[attr-defined]
        outer.__enter__()
    try:
        yield
    finally:
        with blocker.unblock():
            transaction.set_rollback(True)
            outer.__exit__(None, None, None)
