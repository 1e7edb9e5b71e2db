"""retry_letter: a dead letter goes through the ingest once more, when its cause is gone."""

from billing.ingest.parsing import Unreadable, parse_event
from billing.models.usage import DeadLetter
from billing.services.letters import resolve_letter
from billing.services.partitions import ensure_partitions
from billing.services.posting import publish_wallet
from billing.services.usage import post_usage
from turnpike.control.scope import platform_scope
from turnpike.kernel.errors import Conflict


def retry_letter(letter: DeadLetter) -> int:
    """Post what a letter holds, publish it and close the letter; returns the tenant's number.

    Raises Conflict with the reason if it still cannot be posted; the letter stays open.
    """
    body = bytes(letter.body)
    try:
        incoming = parse_event(body, stream=letter.stream, stream_id=letter.stream_id)
    except Unreadable as error:
        raise Conflict(str(error)) from error
    ensure_partitions([incoming.request])
    posted = post_usage(events=[incoming])
    if posted.letters:
        raise Conflict(_error_of(letter.pk))
    for tenant, ranks in posted.ranks.items():
        publish_wallet(tenant=tenant, posted=ranks)
    resolve_letter(letter=letter.pk, resolution=DeadLetter.Resolution.POSTED)
    return incoming.event.tenant


def discard_letter(letter: DeadLetter) -> None:
    """Close a letter for good: nothing is charged, and what Redis holds for it is let go."""
    resolve_letter(letter=letter.pk, resolution=DeadLetter.Resolution.DISCARDED)


def find_letter(number: int) -> DeadLetter | None:
    """An open letter by its number."""
    with platform_scope("find dead letter"):
        return DeadLetter.objects.filter(pk=number, resolved_at=None).first()


def _error_of(number: int) -> str:
    with platform_scope("find dead letter"):
        return DeadLetter.objects.values_list("error", flat=True).get(pk=number)
