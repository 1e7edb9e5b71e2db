"""A finding: what was looked at, how it is, and what to do about it."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the doctor's report."""

    subject: str
    level: Level
    message: str


def fine(subject: str, message: str) -> Finding:
    """All is well."""
    return Finding(subject=subject, level="ok", message=message)


def odd(subject: str, message: str) -> Finding:
    """Worth knowing; nothing is wrong yet."""
    return Finding(subject=subject, level="warning", message=message)


def wrong(subject: str, message: str) -> Finding:
    """A promise does not hold, or a part does not work."""
    return Finding(subject=subject, level="error", message=message)
