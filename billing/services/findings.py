"""Finding, Difference: what a comparison found, each difference with its cause and its figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

EXAMPLES_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that does not agree. `cause` names it however often it is looked at."""

    cause: tuple[str, ...]
    evidence: tuple[tuple[str, str], ...]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found; no differences is good.

    `covered` are the beginnings of the causes that it looked at; None: it looked at everything.
    """

    check: str
    differences: int
    examples: tuple[str, ...] = ()
    rows: tuple[Difference, ...] = ()
    covered: frozenset[tuple[str, ...]] | None = None

    def covers(self, cause: tuple[str, ...]) -> bool:
        """Whether a difference of this cause would have been found."""
        if self.covered is None:
            return True
        return any(cause[:length] in self.covered for length in range(1, len(cause) + 1))

    def as_json(self) -> dict[str, Any]:
        """What is kept of it with its run."""
        return {
            "check": self.check,
            "differences": self.differences,
            "examples": list(self.examples),
        }


def finding_of(
    check: str,
    rows: Sequence[Difference],
    *,
    covered: frozenset[tuple[str, ...]] | None = None,
) -> Finding:
    """The finding of a check's differences."""
    return Finding(
        check=check,
        differences=len(rows),
        examples=tuple(row.text for row in rows[:EXAMPLES_MAX]),
        rows=tuple(rows),
        covered=covered,
    )


def difference_of(names: Sequence[str], values: Sequence[Any], *, cause_columns: int) -> Difference:
    """The difference that a row of a query is, its first columns being the cause."""
    words = [str(value) for value in values]
    return Difference(
        cause=tuple(words[:cause_columns]),
        evidence=tuple(zip(names, words, strict=True)),
        text=", ".join(words),
    )
