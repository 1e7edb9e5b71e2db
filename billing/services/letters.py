"""Dead letters: what could not be posted is kept whole, for a person to decide."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db import connection

from billing.models.usage import DeadLetter
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock

ERROR_LENGTH_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A stream entry that cannot be posted, and why."""

    stream: str
    stream_id: str
    body: bytes
    fingerprint: bytes
    request: UUID | None
    error: str


def write_letters(letters: Iterable[Letter]) -> None:
    """Keep letters; the same body again is the same letter and counts a try."""
    with connection.cursor() as cursor:
        for letter in sorted(letters, key=lambda item: item.fingerprint):
            cursor.execute(
                "INSERT INTO billing_dead_letter AS stored (stream, stream_id, fingerprint, body,"
                " request_id, error, first_at, tries, resolution)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, 1, '')"
                " ON CONFLICT (fingerprint) DO UPDATE SET tries = stored.tries + 1,"
                " error = excluded.error, stream = excluded.stream,"
                " stream_id = excluded.stream_id",
                [
                    letter.stream,
                    letter.stream_id,
                    letter.fingerprint,
                    letter.body,
                    letter.request,
                    letter.error[:ERROR_LENGTH_MAX],
                    clock.utc_now(),
                ],
            )


def resolve_letter(*, letter: int, resolution: str) -> bool:
    """Close an open letter; False if it was closed before."""
    with platform_scope("resolve dead letter"):
        changed = DeadLetter.objects.filter(pk=letter, resolved_at=None).update(
            resolved_at=clock.utc_now(), resolution=resolution
        )
    return changed == 1


def list_letters(*, is_open: bool = True, limit: int) -> Sequence[DeadLetter]:
    """Dead letters, the oldest first."""
    with platform_scope("list dead letters"):
        letters = DeadLetter.objects.order_by("pk")
        if is_open:
            letters = letters.filter(resolved_at=None)
        return list(letters[:limit])
