"""The body of a stream entry to a usage event that can be posted, or a reason why not.

What comes out fits the columns of PostgreSQL: numbers in range, text without NUL or lone
surrogates, times that lie in a month which has a partition.
"""

import dataclasses
import hashlib
import json
from uuid import UUID

from billing.queries.usage import ID_SLACK
from billing.services.usage import Incoming
from turnpike.contracts.rating import BASIS_POINTS, COUNT_MAX
from turnpike.contracts.usage import STATUS_OF_RANK, UsageEvent
from turnpike.kernel import clock, ids
from turnpike.kernel.codec import from_json, to_json

BODY_BYTES_MAX = 1_048_576
REASON_LENGTH_MAX = 500
TEXT_LENGTH_MAX = 300
ATTEMPTS_MAX = 100
ATTEMPT_NUMBER_MAX = 32_767
BIGINT_MAX = 2**63 - 1
# Lua's numbers are exact up to here, so no hold is larger.
HOLD_MICRO_MAX = 2**53
HTTP_STATUS_MAX = 999
OLDEST_US = 1_577_836_800_000_000  # 2020-01-01: no gateway of ours ran before
AHEAD_US_MAX = 86_400 * 1_000_000
ID_SLACK_US = int(ID_SLACK.total_seconds()) * 1_000_000
UUID_VERSION = 7
ESCAPE = "\\u"
NUL = r"\u0000"
TEXT_FIELDS = (
    "model",
    "upstream_model",
    "requested_model",
    "member",
    "tier",
    "stop_reason",
    "error_type",
)


class Unreadable(ValueError):
    """The body is no usage event; it will not become one by waiting."""


def fingerprint_of(body: bytes) -> bytes:
    """What tells two bodies apart."""
    return hashlib.sha256(body).digest()


def parse_event(body: bytes, *, stream: str = "", stream_id: str = "") -> Incoming:
    """Read one stream entry. Raises Unreadable with the reason."""
    if len(body) > BODY_BYTES_MAX:
        raise Unreadable(f"{len(body)} bytes are more than {BODY_BYTES_MAX}.")
    try:
        text = body.decode()
        event = from_json(UsageEvent, text)
        usages = [event.usage, *(attempt.usage for attempt in event.attempts)]
        json.dumps(usages, allow_nan=False)
        if ESCAPE in text:
            # What an escape can spell although no jsonb or text column can hold it.
            spelt = to_json(event)
            spelt.encode()
            _require(NUL not in spelt, "a text holds a NUL character")
    except Unreadable:
        raise
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"Not a usage event: {error}"[:REASON_LENGTH_MAX]) from error
    _check_numbers(event)
    _check_texts(event)
    request = _request_id(event.rid)
    is_near = abs(ids.uuid7_ms(request) * 1_000 - event.started_at_us) <= ID_SLACK_US
    _require(is_near, "rid and started_at_us are of different times")
    return Incoming(
        event=_with_finish_after_start(event),
        request=request,
        fingerprint=fingerprint_of(body),
        body=body,
        stream=stream,
        stream_id=stream_id,
    )


def find_request_id(body: bytes) -> UUID | None:
    """The request that an unreadable body seems to be about, if it says so."""
    try:
        return _request_id(json.loads(body)["rid"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _request_id(text: str) -> UUID:
    try:
        request = UUID(text)
    except ValueError as error:
        raise Unreadable("rid is no UUID") from error
    # Redis' records are named by this text, so a second spelling would be a second request.
    _require(str(request) == text and request.version == UUID_VERSION, "rid is no UUIDv7")
    at_us = ids.uuid7_ms(request) * 1_000
    _require(OLDEST_US <= at_us <= clock.now_us() + AHEAD_US_MAX, "rid lies out of time")
    return request


def _check_numbers(event: UsageEvent) -> None:
    _require(0 <= event.rank < len(STATUS_OF_RANK), f"rank {event.rank} does not exist")
    for name in ("tenant", "workspace", "key", "price_set"):
        _require(0 <= getattr(event, name) <= BIGINT_MAX, f"{name} is no id")
    _require(0 <= event.hold_micro <= HOLD_MICRO_MAX, "hold_micro is out of range")
    _require(0 <= event.discount_bp <= BASIS_POINTS, "discount_bp is out of range")
    _require(0 <= event.output_chars <= COUNT_MAX, "output_chars is out of range")
    latest_us = clock.now_us() + AHEAD_US_MAX
    for name in ("started_at_us", "finished_at_us"):
        _require(OLDEST_US <= getattr(event, name) <= latest_us, f"{name} lies out of time")
    _require(0 <= (event.ttft_us or 0) <= BIGINT_MAX, "ttft_us is out of range")
    _require(0 <= (event.http_status or 0) <= HTTP_STATUS_MAX, "http_status is out of range")
    _require(len(event.attempts) <= ATTEMPTS_MAX, "too many attempts")
    for attempt in event.attempts:
        _require(0 <= attempt.n <= ATTEMPT_NUMBER_MAX, "attempt number is out of range")
        _require(0 <= attempt.upstream <= BIGINT_MAX, "attempt's upstream is no id")
        _require(0 <= (attempt.credential or 0) <= BIGINT_MAX, "attempt's credential is no id")


def _check_texts(event: UsageEvent) -> None:
    _require(event.status in STATUS_OF_RANK, "status is unknown")
    _require(bool(event.model), "model is empty")
    for name in TEXT_FIELDS:
        value = getattr(event, name)
        _require(value is None or len(value) <= TEXT_LENGTH_MAX, f"{name} is too long")
    for attempt in event.attempts:
        for text in (attempt.outcome, attempt.upstream_request_id or ""):
            _require(len(text) <= TEXT_LENGTH_MAX, "an attempt's text is too long")


def _with_finish_after_start(event: UsageEvent) -> UsageEvent:
    """A gateway's clock that was set back makes no negative duration."""
    if event.finished_at_us >= event.started_at_us:
        return event
    return dataclasses.replace(event, finished_at_us=event.started_at_us)


def _require(is_true: bool, reason: str) -> None:  # noqa: FBT001
    if not is_true:
        raise Unreadable(reason)
