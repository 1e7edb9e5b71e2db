"""Whether what a call changed has reached the data plane, so that an answer can say so.

Services publish after the commit, so the view that answers opens a watch around the transaction:
``effective`` is true when everything planned in it was published.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Publication:
    """What became of the publications of one call."""

    planned: int = 0
    published: int = 0

    @property
    def is_effective(self) -> bool:
        """Whether all that was planned was published."""
        return self.published >= self.planned


_watch: ContextVar[Publication | None] = ContextVar("publication_watch", default=None)


@contextmanager
def watch_publication() -> Iterator[Publication]:
    """Collect what is planned and published until the block ends."""
    publication = Publication()
    token = _watch.set(publication)
    try:
        yield publication
    finally:
        _watch.reset(token)


def note_planned() -> None:
    """A change was made that has to be published after the commit."""
    watch = _watch.get()
    if watch is not None:
        watch.planned += 1


def note_published() -> None:
    """One planned publication has reached Redis."""
    watch = _watch.get()
    if watch is not None:
        watch.published += 1
