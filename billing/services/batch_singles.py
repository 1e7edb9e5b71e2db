"""send_singles: items that no upstream takes as a batch, one by one through the data plane.

The data plane knows how to reach, convert and fail over; a ticket tells it that the item's price is
held and charged by us, so it only forwards. A few items are under way at once, for a short turn;
then other parts have theirs. An item whose worker was killed is sent again: the tenant is charged
once, and what an upstream may have billed before is an attempt that nobody knows the end of.
"""

import http.client
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import F

from billing.models.batches import BatchItem, BatchPart, MessageBatch
from billing.services.batch_content import open_batch_key, place_of
from billing.services.batch_outcomes import errored, refused, succeeded
from billing.services.batch_results import Outcome, settle_items
from billing.services.batch_wire import MESSAGE_BYTES_MAX, Answer, Server, Unclear, Unsent
from billing.services.usage import Mark
from turnpike.contracts import tickets
from turnpike.contracts.usage import OUTCOME_ANSWERED, OUTCOME_UNKNOWN, Attempt
from turnpike.control.scope import platform_scope
from turnpike.env import env
from turnpike.kernel import clock

logger = logging.getLogger(__name__)

AT_ONCE = 8
TURN_ITEMS_MAX = 64
# Longer than any upstream's own deadline: who answers late is still heard.
ANSWER_SECONDS = 700.0
ATTEMPTS_MAX = 5
BACKOFF_SECONDS_MAX = 300
PATH = "/v1/messages"
# Refusals of us or of the moment: nothing was billed, the item's time will come.
NOT_NOW = frozenset((401, 402, 403, 408, 409, 425, 429, 503, 529))
UPSTREAM_HEADER, CREDENTIAL_HEADER = "x-turnpike-upstream", "x-turnpike-credential"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    """An item about to be sent; `attempt` counts this try."""

    number: int
    request_id: UUID
    model: str
    attempt: int
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """What became of one try: an outcome, or none yet; `was_refused`: nothing can be billed."""

    item: _Item
    outcome: Outcome | None
    was_refused: bool = False


def send_singles(
    part: BatchPart, batch: MessageBatch, *, now: datetime, mark: Mark
) -> datetime | None:
    """Send some items of a part; when to go on, None when none is left."""
    items = _take(part, batch)
    if not items:
        return None
    mark("sending")
    server = Server(base_url=env().data_plane, headers=_headers(batch))
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        sent = list(pool.map(lambda item: _send(server, item), items))
    mark("answered")
    outcomes = [done.outcome for done in sent if done.outcome is not None]
    settle_items(batch=batch.id, outcomes=outcomes, mark=mark)
    refused_numbers = [done.item.number for done in sent if done.was_refused]
    _forget_attempts(batch, refused_numbers)
    # Nobody had time for any of them: wait before asking again.
    is_stuck = len(refused_numbers) == len(items)
    failures = part.failures + 1 if is_stuck else 0
    with platform_scope("note batch failures"):
        BatchPart.objects.filter(pk=part.pk, lease=part.lease).update(failures=failures)
    wait_seconds = min(BACKOFF_SECONDS_MAX, 2**failures) if is_stuck else 0
    return clock.utc_now() + timedelta(seconds=wait_seconds)


def _take(part: BatchPart, batch: MessageBatch) -> list[_Item]:
    """The next items, each with its try counted before it is sent."""
    data_key = open_batch_key(batch)
    with platform_scope("take batch items"):
        rows = list(
            BatchItem.objects.filter(
                batch_id=batch.id, part=part.number, state=BatchItem.State.WAITING
            ).order_by("attempts", "number")[:TURN_ITEMS_MAX]
        )
        BatchItem.objects.filter(batch_id=batch.id, number__in=[row.number for row in rows]).update(
            attempts=F("attempts") + 1
        )
    return [
        _Item(
            number=row.number,
            request_id=row.request_id,
            model=row.model,
            attempt=row.attempts + 1,
            body=data_key.unseal(bytes(row.params or b""), place=place_of(row.number, "params")),
        )
        for row in rows
    ]


def _send(server: Server, item: _Item) -> _Sent:
    ticket = tickets.write_ticket(
        tickets.Ticket(
            rid=str(item.request_id),
            model=item.model,
            body_digest=tickets.digest_body(item.body),
            expires_at_us=clock.now_us() + tickets.SECONDS * 1_000_000,
        ),
        peppers=env().peppers,
    )
    try:
        answer = server.call(
            "POST",
            PATH,
            body=item.body,
            headers={tickets.HEADER: ticket},
            seconds=ANSWER_SECONDS,
            bytes_max=MESSAGE_BYTES_MAX,
        )
    except Unsent:
        return _Sent(item=item, outcome=None, was_refused=True)
    except Unclear:
        return _Sent(item=item, outcome=_given_up(item))
    if answer.status == http.client.OK:
        outcome = succeeded(
            item.number,
            answer.payload,
            request_id=item.request_id,
            attempts=_attempts(item, answer),
        )
        return _Sent(item=item, outcome=outcome)
    if answer.status in NOT_NOW:
        return _Sent(item=item, outcome=None, was_refused=True)
    if answer.status >= http.client.INTERNAL_SERVER_ERROR:
        return _Sent(item=item, outcome=_given_up(item))
    outcome = refused(item.number, answer.payload, request_id=item.request_id)
    return _Sent(item=item, outcome=outcome)


def _given_up(item: _Item) -> Outcome | None:
    """None while it may be tried again."""
    if item.attempt < ATTEMPTS_MAX:
        return None
    return errored(
        item.number,
        "api_error",
        "The model's answer could not be had. Nothing was charged.",
        request_id=item.request_id,
    )


def _attempts(item: _Item, answer: Answer) -> tuple[Attempt, ...]:
    """This try, and those before it whose end nobody knows."""
    upstream = _number(answer.headers.get(UPSTREAM_HEADER))
    earlier = tuple(
        Attempt(n=n, upstream=upstream, outcome=OUTCOME_UNKNOWN) for n in range(1, item.attempt)
    )
    last = Attempt(
        n=item.attempt,
        upstream=upstream,
        credential=_number(answer.headers.get(CREDENTIAL_HEADER)) or None,
        upstream_request_id=answer.headers.get("x-turnpike-upstream-request-id"),
        outcome=OUTCOME_ANSWERED,
    )
    return (*earlier, last)


def _forget_attempts(batch: MessageBatch, numbers: Sequence[int]) -> None:
    with platform_scope("forget refused attempts"):
        BatchItem.objects.filter(batch_id=batch.id, number__in=list(numbers)).update(
            attempts=F("attempts") - 1
        )


def _headers(batch: MessageBatch) -> dict[str, str]:
    headers = {"anthropic-version": batch.api_version, "content-type": "application/json"}
    return {**headers, "anthropic-beta": batch.betas} if batch.betas else headers


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() and len(text) < 19 else 0
