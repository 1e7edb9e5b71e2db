"""Builds usage events: one for each admitted request, by whoever ends it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from turnpike.contracts import usage as words
from turnpike.contracts.usage import Attempt, EventBase, UsageEvent

TOKENS_PER_CHARACTER = 0.25


class Outcome(msgspec.Struct, kw_only=True):
    """How a request ended, as far as whoever ends it knows."""

    rank: int = words.RANK_VOID
    usage: Mapping[str, Any] = {}
    output_chars: int = 0
    http_status: int | None = None
    stop_reason: str | None = None
    error_type: str | None = None
    ttft_us: int | None = None
    upstream_model: str | None = None


def build_event(
    base: EventBase,
    outcome: Outcome,
    *,
    attempts: Sequence[Attempt],
    hold_micro: int,
    finished_at_us: int,
) -> UsageEvent:
    """The event of a request that was admitted with `base`."""
    return UsageEvent(
        rid=base.rid,
        rank=outcome.rank,
        status=words.STATUS_OF_RANK[outcome.rank],
        tenant=base.tenant,
        workspace=base.workspace,
        key=base.key,
        member=base.member,
        model=base.model,
        upstream_model=outcome.upstream_model or base.upstream_model,
        requested_model=base.requested_model,
        price_set=base.price_set,
        discount_bp=base.discount_bp,
        tier=base.tier,
        stream=base.stream,
        started_at_us=base.started_at_us,
        finished_at_us=max(finished_at_us, base.started_at_us),
        ttft_us=outcome.ttft_us,
        hold_micro=hold_micro,
        usage=outcome.usage,
        output_chars=outcome.output_chars,
        http_status=outcome.http_status,
        stop_reason=outcome.stop_reason,
        error_type=outcome.error_type,
        attempts=tuple(attempts),
    )


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
