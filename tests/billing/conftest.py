"""Fixtures of the billing tests; those with real transactions end with a flush of every table."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from billing.services.catalog import SHIPPED_CATALOG
from tests.billing.catalog_file import EditCatalog
from tests.support.flush import allow_flush

allow_flush()


@pytest.fixture
def edited(tmp_path: Path) -> EditCatalog:
    """A copy of the shipped file with an edit."""

    def edit(change: Callable[[dict[str, Any]], None]) -> Path:
        content = json.loads(SHIPPED_CATALOG.read_text())
        change(content)
        path = tmp_path / "catalog.json"
        path.write_text(json.dumps(content))
        return path

    return edit
