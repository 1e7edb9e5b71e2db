"""Builds usage events: one for each admitted request, by whoever ends it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from proxy.plain_usage import written
from turnpike.contracts import usage as words
from turnpike.contracts.usage import Attempt, EventBase, UsageEvent

TOKENS_PER_CHARACTER = 0.25

_encode = msgspec.json.Encoder().encode
_read_event = msgspec.json.Decoder(UsageEvent).decode


class Outcome(msgspec.Struct, kw_only=True, gc=False):
    """How a request ended, as far as whoever ends it knows."""

    rank: int = words.RANK_VOID
    usage: Mapping[str, Any] = {}
    output_chars: int = 0
    http_status: int | None = None
    stop_reason: str | None = None
    error_type: str | None = None
    ttft_us: int | None = None
    upstream_model: str | None = None


class OwnAttempt(msgspec.Struct, kw_only=True, gc=False):
    """An `Attempt` of this worker's: made and written in half the time."""

    n: int
    upstream: int
    credential: int | None = None
    upstream_request_id: str | None = None
    outcome: str = words.OUTCOME_UNKNOWN
    usage: Mapping[str, Any] | msgspec.Raw | None = None


class _End(msgspec.Struct, kw_only=True, gc=False):
    """What an event says of the end of its request; UsageEvent has the names."""

    rank: int
    status: str
    upstream_model: str
    finished_at_us: int
    hold_micro: int
    usage: Mapping[str, Any] | msgspec.Raw
    ttft_us: int | None
    http_status: int | None
    stop_reason: str | None
    error_type: str | None
    output_chars: int
    attempts: Sequence[Attempt | OwnAttempt]
    schema: int = words.SCHEMA


def fixed_members(
    *,
    tenant: int,
    workspace: int,
    key: int,
    member: str | None,
    model: str,
    requested_model: str,
    price_set: int,
    discount_bp: int,
    tier: str = "standard",
) -> bytes:
    """What all events of a key and a model say alike, as members of a JSON object."""
    fixed = {
        "tenant": tenant,
        "workspace": workspace,
        "key": key,
        "member": member,
        "model": model,
        "requested_model": requested_model,
        "price_set": price_set,
        "discount_bp": discount_bp,
        "tier": tier,
    }
    return _encode(fixed)[1:-1]


def event_members(fixed: bytes, rid: str, started_at_us: int, *, is_stream: bool) -> bytes:
    """What is known of a request's event at its admission, as members of a JSON object."""
    stream = b"true" if is_stream else b"false"
    return b'"rid":"%b",%b,"started_at_us":%d,"stream":%b' % (
        rid.encode(),
        fixed,
        started_at_us,
        stream,
    )


def base_json(members: bytes, upstream_model: str, max_tokens: int) -> bytes:
    """The EventBase of an admission as JSON."""
    model = _encode(upstream_model)
    return b'{%b,"upstream_model":%b,"max_tokens":%d}' % (members, model, max_tokens)


def event_json(
    members: bytes,
    outcome: Outcome,
    *,
    upstream_model: str,
    attempts: Sequence[Attempt | OwnAttempt],
    hold_micro: int,
    finished_at_us: int,
) -> bytes:
    """The event of a request that was admitted with these members, as JSON.

    Written from its parts: making the whole event first and encoding it then costs twice as much.
    """
    end = _End(
        rank=outcome.rank,
        status=words.STATUS_OF_RANK[outcome.rank],
        upstream_model=outcome.upstream_model or upstream_model,
        finished_at_us=finished_at_us,
        hold_micro=hold_micro,
        usage=written(outcome.usage),
        ttft_us=outcome.ttft_us,
        http_status=outcome.http_status,
        stop_reason=outcome.stop_reason,
        error_type=outcome.error_type,
        output_chars=outcome.output_chars,
        attempts=attempts,
    )
    return b"{%b,%b" % (members, _encode(end)[1:])


def build_event(
    base: EventBase,
    outcome: Outcome,
    *,
    attempts: Sequence[Attempt],
    hold_micro: int,
    finished_at_us: int,
) -> UsageEvent:
    """The event of a request that was admitted with `base`, by whoever ends it for another."""
    fixed = fixed_members(
        tenant=base.tenant,
        workspace=base.workspace,
        key=base.key,
        member=base.member,
        model=base.model,
        requested_model=base.requested_model,
        price_set=base.price_set,
        discount_bp=base.discount_bp,
        tier=base.tier,
    )
    members = event_members(
        fixed, rid=base.rid, started_at_us=base.started_at_us, is_stream=base.stream
    )
    text = event_json(
        members,
        outcome,
        upstream_model=base.upstream_model,
        attempts=attempts,
        hold_micro=hold_micro,
        finished_at_us=max(finished_at_us, base.started_at_us),
    )
    return _read_event(text)


def rank_of_remains(*, has_attempt: bool) -> int:
    """The rank of an event made from a dead worker's journal.

    Admitted and never sent: surely unbilled. Sent: observed, with whatever usage was noted; where
    none was, the amount is zero and the attempt stays `unknown` for reconciliation.
    """
    return words.RANK_OBSERVED if has_attempt else words.RANK_VOID


def observed_usage_of(
    usage: Mapping[str, Any] | None,
    *,
    output_chars: int,
    is_final: bool,
    max_tokens: int,
    ratio: float = TOKENS_PER_CHARACTER,
) -> dict[str, Any]:
    """The usage of a stream that somebody else relayed: its output estimated where it was cut.

    The estimate is the highest of what was reported and what was seen, at most `max_tokens`. Empty
    before the message began: nothing is billed then.
    """
    if not usage:
        return {}
    if is_final:
        return dict(usage)
    reported = usage.get("output_tokens")
    seen = math.ceil(output_chars * ratio)
    output = max(reported if isinstance(reported, int) else 0, seen)
    return {**usage, "output_tokens": min(output, max_tokens)}
