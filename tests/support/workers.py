"""A pytest plugin: which of xdist's workers runs which test, and what is started first.

It also keeps Python from looking for garbage, again and again, among everything that was imported:
that would be a quarter of what collecting the tests costs, and a part of what each of them does.
"""

import gc
import os
from typing import Any

import pytest
from xdist.scheduler.loadscope import (  # type: ignore[import-untyped]  # it ships no types
    LoadScopeScheduling,
)

# Tests in here use the one running platform, so one worker has them all and starts it once.
PLATFORM_FOLDERS = ("tests/e2e/", "tests/sdk/", "tests/clients/", "tests/browser/")
# What waits for other processes: begun early, it overlaps with the many short ones, and the longest
# is not what is left in the end.
FIRST_FOLDERS = (*PLATFORM_FOLDERS, "tests/storm/", "tests/faults/")
# Tests in here share what takes long to make, once for the worker that has them.
SHARING = ("tests/faults/", "tests/test_layout.py", "tests/accounts/test_accounts_matrix.py")
# Each worker has databases and servers of its own; beyond this they gain little.
WORKERS_MIN, WORKERS_MAX = 3, 4


class PlatformScheduling(LoadScopeScheduling):  # type: ignore[misc]  # the same
    """Hands out tests one by one, but what shares the platform, servers or rows, as a whole."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(PLATFORM_FOLDERS):
            return "platform"
        return next((shared for shared in SHARING if nodeid.startswith(shared)), nodeid)


@pytest.hookimpl(optionalhook=True, tryfirst=True)  # xdist has an answer of its own
def pytest_xdist_auto_num_workers() -> int:
    """One worker more than there are cores, within bounds: a test waits for other processes.

    On two cores three of them keep these busy for five sixths of the time, two for two thirds.
    """
    cores = len(os.sched_getaffinity(0))
    return min(max(cores + 1, WORKERS_MIN), WORKERS_MAX)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> PlatformScheduling:
    """Schedule with the groups of this suite."""
    return PlatformScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long ones first, in that order; the rest stays as it was collected."""
    items.sort(key=lambda item: _rank_of(item.nodeid))


def _rank_of(nodeid: str) -> int:
    ranks = (at for at, folder in enumerate(FIRST_FOLDERS) if nodeid.startswith(folder))
    return next(ranks, len(FIRST_FOLDERS))


@pytest.hookimpl(tryfirst=True)
def pytest_collection() -> None:
    """Until all tests are there, all that is made is here to stay."""
    gc.disable()


def pytest_collection_finish() -> None:
    """From here on garbage is looked for again, but not among what is here to stay."""
    gc.freeze()
    gc.enable()
