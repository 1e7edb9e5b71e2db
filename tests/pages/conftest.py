"""All pages in all looks: collected where `make test-pages` names this folder, and only there."""

from pathlib import Path

import pytest

from tests.browser.conftest import *  # noqa: F403 - the browser, its visitors and what they check


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Collect this folder only where the command line names it."""
    is_named = any("tests/pages" in argument for argument in config.args)
    return None if is_named else True
