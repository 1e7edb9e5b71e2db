"""Checked values that services share: names, limits, budgets, and what a change was."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import models

from accounts.models import NAME_LENGTH_MAX, REASON_LENGTH_MAX
from turnpike.contracts.snapshots import LIMIT_NAMES
from turnpike.kernel import clock
from turnpike.kernel.errors import InvalidInput
from turnpike.kernel.money import NANOS_MAX

BUDGET_NAMES = ("daily_budget_nano", "monthly_budget_nano")
# Whether a budget refuses what could pass it, or only tells.
BUDGET_MODES = ("daily_budget_blocks", "monthly_budget_blocks")
LIMITED_FIELDS = frozenset({*LIMIT_NAMES, *BUDGET_NAMES, *BUDGET_MODES})
COUNT_MAX = 2**31 - 1
BURST_SECONDS_MAX = 3_600


def check_name(name: str) -> str:
    """A name without surrounding space. Raises InvalidInput if empty, too long or unprintable."""
    stripped = name.strip()
    if not 0 < len(stripped) <= NAME_LENGTH_MAX or not stripped.isprintable():
        raise InvalidInput(
            f"name must have 1 to {NAME_LENGTH_MAX} printable characters.", field="name"
        )
    return stripped


def check_reason(reason: str) -> str:
    """A reason for the log. Raises InvalidInput if empty or too long."""
    stripped = reason.strip()
    if not 0 < len(stripped) <= REASON_LENGTH_MAX:
        raise InvalidInput(f"reason must have 1 to {REASON_LENGTH_MAX} characters.", field="reason")
    return stripped


def check_changes(changes: Mapping[str, Any], *, allowed: frozenset[str]) -> dict[str, Any]:
    """Changes that may be written to a row: known fields, limits and budgets in range."""
    unknown = sorted(set(changes) - allowed)
    if unknown:
        raise InvalidInput(f"{unknown[0]} cannot be changed.", field=unknown[0])
    checked = dict(changes)
    if "name" in checked:
        checked["name"] = check_name(checked["name"])
    for field in LIMITED_FIELDS & set(checked):
        _check_limit(field, checked[field])
    return checked


def apply_changes(row: models.Model, changes: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """Write changed fields to a row and save it; what they were and are, for the audit log."""
    before = {name: plain(getattr(row, name)) for name in changes}
    for name, value in changes.items():
        setattr(row, name, value)
    if changes:
        row.save(update_fields=list(changes))
    return before, {name: plain(value) for name, value in changes.items()}


def plain(value: Any) -> Any:
    """A field's value as JSON has it."""
    return clock.rfc3339(value) if isinstance(value, datetime) else value


def _check_limit(field: str, value: int | None) -> None:
    if field in BUDGET_MODES:
        if not isinstance(value, bool):
            raise InvalidInput(f"{field} must be true or false.", field=field)
        return
    if value is None:
        return
    low, high = 1, COUNT_MAX
    if field in BUDGET_NAMES:
        low, high = 0, NANOS_MAX
    elif field == "burst_seconds":
        high = BURST_SECONDS_MAX
    if not low <= value <= high:
        raise InvalidInput(f"{field} must be from {low} to {high}, not {value}.", field=field)
