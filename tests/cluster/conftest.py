"""The platform on a cluster of three primaries and three replicas.

Not part of `make test`: `make test-cluster` asks for this folder by name, which is the only way to
get it collected.
"""

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Collect this folder only where the command line names it."""
    is_named = any("tests/cluster" in argument for argument in config.args)
    return None if is_named else True
