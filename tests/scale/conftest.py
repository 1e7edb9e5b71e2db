"""A million events, collected where `make test-scale` names this folder, and only there."""

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Collect this folder only where the command line names it."""
    is_named = any("tests/scale" in argument for argument in config.args)
    return None if is_named else True
