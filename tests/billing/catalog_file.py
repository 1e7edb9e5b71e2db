"""Edited copies of the shipped catalogue file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

EditCatalog = Callable[[Callable[[dict[str, Any]], None]], Path]
