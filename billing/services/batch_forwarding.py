"""forward: a part goes to an upstream as a batch of its own: ordered, watched, fetched.

Ordering is the one step that must not be repeated blindly. A worker says that it begins before it
does; who finds a part in that state looks for the batch at the upstream before ordering it again.
Items are named after our batch there, so that results are known for ours or somebody else's.
"""

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import msgspec

from billing.models.batches import BatchItem, BatchPart, MessageBatch
from billing.models.upstreams import Upstream, UpstreamCredential
from billing.services.batch_content import open_batch_key, place_of
from billing.services.batch_outcomes import read_outcome
from billing.services.batch_results import Outcome, close_items, settle_items
from billing.services.batch_wire import (
    Refused,
    Server,
    Unclear,
    Unsent,
    UpstreamBatch,
    UpstreamBatches,
)
from billing.services.usage import Mark
from turnpike.contracts.snapshots import credential_place
from turnpike.contracts.usage import OUTCOME_ANSWERED, Attempt
from turnpike.control.scope import platform_scope
from turnpike.env import env
from turnpike.kernel import sealing
from turnpike.kernel.errors import Unavailable

logger = logging.getLogger(__name__)

SETTLED_AT_ONCE = 250
POLL_SECONDS_MAX = 60
BACKOFF_SECONDS_MAX = 300
# After our own end the upstream gets this long to say what it still did.
OVERTIME = timedelta(hours=2)
SKEW = timedelta(minutes=5)
# These say that the upstream has no batches, or not this one: its items go one by one instead.
HAS_NO_BATCHES = frozenset((400, 404, 405, 413, 422))


class _Line(msgspec.Struct, frozen=True):
    custom_id: str
    result: msgspec.Raw


_decode_line = msgspec.json.Decoder(_Line).decode


def forward(
    part: BatchPart, batch: MessageBatch, *, stop: str, now: datetime, mark: Mark
) -> datetime | None:
    """Carry a part one step on; when to look at it again, None when it is done."""
    upstream = UpstreamBatches(_server(part, batch))
    if part.state == BatchPart.State.SUBMITTING and not _found_again(part, batch, upstream):
        _change(part, state=BatchPart.State.WAITING)
    if part.state == BatchPart.State.WAITING:
        return _order(part, batch, upstream, now=now, mark=mark)
    return _watch(part, batch, upstream, stop=stop, now=now, mark=mark)


def _order(
    part: BatchPart, batch: MessageBatch, upstream: UpstreamBatches, *, now: datetime, mark: Mark
) -> datetime:
    body = _body(part, batch)
    _change(part, state=BatchPart.State.SUBMITTING, submitted_at=now)
    mark("submitting")
    try:
        made = upstream.create(body)
    except Unsent:
        _change(part, state=BatchPart.State.WAITING, failures=part.failures + 1)
        return now + _backoff(part)
    except Unclear:
        _change(part, failures=part.failures + 1)
        return now + _backoff(part)
    except Refused as refused:
        logger.warning("batch.refused", extra={"status": refused.status, "part": part.pk})
        _change(part, state=BatchPart.State.WAITING, failures=part.failures + 1)
        if refused.status in HAS_NO_BATCHES:
            _change(part, upstream_id=None, credential_id=None)
            return now
        return now + _backoff(part)
    mark("ordered")
    _change(part, state=BatchPart.State.SUBMITTED, upstream_batch=made.ident, failures=0)
    return now + timedelta(seconds=1)


def _watch(
    part: BatchPart,
    batch: MessageBatch,
    upstream: UpstreamBatches,
    *,
    stop: str,
    now: datetime,
    mark: Mark,
) -> datetime | None:
    try:
        if stop and not part.is_cancel_sent:
            upstream.cancel(part.upstream_batch)
            _change(part, is_cancel_sent=True)
        seen = upstream.retrieve(part.upstream_batch)
        if not seen.is_ended:
            return _later(part, batch, stop=stop, now=now)
        if not _collect(part, batch, upstream, mark=mark):
            # What was found after a crash is somebody else's: ours was never ordered.
            _change(part, state=BatchPart.State.WAITING, upstream_batch="")
            return now
    except (Unsent, Unclear, Refused) as error:
        logger.warning("batch.not_watched", extra={"part": part.pk, "reason": str(error)})
        _change(part, failures=part.failures + 1)
        if now >= batch.expires_at + OVERTIME:
            close_items(batch=batch.id, part=part.number, state=BatchItem.State.EXPIRED)
            return None
        return now + _backoff(part)
    close_items(batch=batch.id, part=part.number, state=stop or str(BatchItem.State.EXPIRED))
    return None


def _later(part: BatchPart, batch: MessageBatch, *, stop: str, now: datetime) -> datetime | None:
    if now >= batch.expires_at + OVERTIME:
        close_items(batch=batch.id, part=part.number, state=stop)
        return None
    age_seconds = (now - (part.submitted_at or now)).total_seconds()
    return now + timedelta(seconds=min(POLL_SECONDS_MAX, 2 + age_seconds / 20))


def _collect(
    part: BatchPart, batch: MessageBatch, upstream: UpstreamBatches, *, mark: Mark
) -> bool:
    """Settle the results; False where they are not of this part at all."""
    prefix = _prefix(batch)
    lines = _results(upstream, part, batch, prefix)
    is_ours = False
    while chunk := list(islice(lines, SETTLED_AT_ONCE)):
        outcomes = [outcome for outcome in chunk if outcome is not None]
        is_ours = is_ours or bool(outcomes)
        settle_items(batch=batch.id, outcomes=outcomes, mark=mark)
    return is_ours or _count_waiting(part) == 0


def _results(
    upstream: UpstreamBatches, part: BatchPart, batch: MessageBatch, prefix: str
) -> Iterator[Outcome | None]:
    for line in upstream.results(part.upstream_batch):
        try:
            found = _decode_line(line)
        except (msgspec.DecodeError, RecursionError):
            continue
        number = found.custom_id.removeprefix(prefix)
        if not found.custom_id.startswith(prefix) or not number.isdecimal():
            yield None
            continue
        attempt = Attempt(
            n=part.failures + 1,
            upstream=part.upstream_id or 0,
            credential=part.credential_id,
            outcome=OUTCOME_ANSWERED,
        )
        outcome = read_outcome(batch, int(number), bytes(found.result), attempt=attempt)
        is_ours_to_expire = outcome.state == BatchItem.State.CANCELED
        if is_ours_to_expire and batch.state != MessageBatch.State.CANCELING:
            # We canceled it because its time was over.
            outcome = Outcome(
                number=outcome.number, state=BatchItem.State.EXPIRED, result=b'{"type":"expired"}'
            )
        yield outcome


def _found_again(part: BatchPart, batch: MessageBatch, upstream: UpstreamBatches) -> bool:
    """Whether an order whose answer nobody kept is at the upstream; then it is ours again."""
    count = _count_waiting(part)
    assert part.submitted_at is not None
    try:
        newest = upstream.newest()
    except Refused as error:
        raise Unavailable("The upstream does not list its batches.") from error
    except (Unsent, Unclear) as error:
        raise Unavailable("The upstream cannot be asked.") from error
    for seen in newest:
        if seen.count == count and _is_since(seen, part.submitted_at) and _is_free(seen, part):
            _change(part, state=BatchPart.State.SUBMITTED, upstream_batch=seen.ident)
            return True
    return False


def _is_since(seen: UpstreamBatch, submitted_at: datetime) -> bool:
    try:
        return datetime.fromisoformat(seen.created_at) >= submitted_at - SKEW
    except (ValueError, TypeError):
        return False


def _is_free(seen: UpstreamBatch, part: BatchPart) -> bool:
    with platform_scope("known upstream batches"):
        known = BatchPart.objects.filter(upstream_id=part.upstream_id, upstream_batch=seen.ident)
        return not known.exists()


def _body(part: BatchPart, batch: MessageBatch) -> bytes:
    data_key, prefix = open_batch_key(batch), _prefix(batch)
    with platform_scope("read batch items"):
        rows: Sequence[Any] = list(_waiting(part).values_list("number", "params"))
    items = (
        b'{"custom_id":"%b%d","params":%b}'
        % (
            prefix.encode(),
            number,
            data_key.unseal(bytes(params), place=place_of(number, "params")),
        )
        for number, params in rows
    )
    return b'{"requests":[' + b",".join(items) + b"]}"


def _prefix(batch: MessageBatch) -> str:
    return f"{batch.id.hex}-"


def _count_waiting(part: BatchPart) -> int:
    with platform_scope("count batch items"):
        return int(_waiting(part).count())


def _waiting(part: BatchPart) -> Any:
    return BatchItem.objects.filter(
        batch_id=part.batch_id, part=part.number, state=BatchItem.State.WAITING
    ).order_by("number")


def _change(part: BatchPart, **changes: Any) -> None:
    """Change a part that is still ours, here and in the database."""
    for name, value in changes.items():
        setattr(part, name, value)
    with platform_scope("change batch part"):
        BatchPart.objects.filter(pk=part.pk, lease=part.lease).update(**changes)


def _backoff(part: BatchPart) -> timedelta:
    return timedelta(seconds=min(BACKOFF_SECONDS_MAX, 2 ** min(part.failures, 10)))


def _server(part: BatchPart, batch: MessageBatch) -> Server:
    with platform_scope("read upstream"):
        upstream = Upstream.objects.get(pk=part.upstream_id or 0)
        credential = UpstreamCredential.objects.filter(pk=part.credential_id or 0).first()
    headers = {
        "anthropic-version": batch.api_version,
        "content-type": "application/json",
        "accept": "application/json",
    }
    if batch.betas:
        headers["anthropic-beta"] = batch.betas
    if credential is not None and credential.sealed:
        headers["x-api-key"] = sealing.unseal(
            credential.sealed,
            place=credential_place(credential.pk),
            master_keys=env().sealing_keys,
        )
    if upstream.send_request_id:
        headers["x-turnpike-request-id"] = batch.public_id
    return Server(base_url=upstream.base_url, headers=headers)
