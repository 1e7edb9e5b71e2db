"""UsageEvent: what one request used; stamped by the proxy, read by billing.

Also the words of its life: rank says how good the knowledge is, status names it. A higher rank may
revise a lower one, once per rank.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCHEMA = 1

RANK_VOID = 0
RANK_ESTIMATED = 1
RANK_OBSERVED = 2
RANK_REPORTED = 3
RANK_RECONCILED = 4
STATUS_OF_RANK = ("void", "estimated", "observed", "reported", "reconciled")
STATUS_UNRATED = "unrated"

# What became of an attempt at an upstream.
OUTCOME_ANSWERED = "answered"  # the upstream gave its final usage
OUTCOME_REFUSED = "refused"  # it answered with an error before anything was billed
OUTCOME_FAILED = "failed"  # it could not be reached or broke before anything was billed
OUTCOME_CUT = "cut"  # billed, and ended early on either side
OUTCOME_UNKNOWN = "unknown"  # it may have billed; nobody read the answer
OUTCOME_RECONCILED = "reconciled"  # a person settled it by the upstream's own report


# Nobody changes these three once they are made. They are not frozen, since that makes them three
# times as dear to make.


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One try at an upstream; at most one of a request's attempts is billed to the tenant."""

    n: int
    upstream: int
    credential: int | None = None
    upstream_request_id: str | None = None
    outcome: str = OUTCOME_UNKNOWN
    usage: Mapping[str, Any] | None = None


@dataclass(slots=True, kw_only=True)
class EventBase:
    """What is known of a request at admission: enough to write an event without its worker."""

    rid: str
    tenant: int
    workspace: int
    key: int
    model: str
    upstream_model: str
    price_set: int
    started_at_us: int
    member: str | None = None
    tier: str = "standard"
    stream: bool = False
    discount_bp: int = 0
    max_tokens: int = 0
    requested_model: str = ""


@dataclass(slots=True, kw_only=True)
class UsageEvent:
    """The record that ends a request's life. `usage` is the upstream's own, last values.

    The amount is `rate(...)` of it under `price_set` and `discount_bp`, at most `hold_micro`.
    """

    rid: str
    rank: int
    status: str
    tenant: int
    workspace: int
    key: int
    model: str
    upstream_model: str
    price_set: int
    started_at_us: int
    finished_at_us: int
    hold_micro: int
    usage: Mapping[str, Any] = field(default_factory=dict)
    member: str | None = None
    tier: str = "standard"
    stream: bool = False
    discount_bp: int = 0
    requested_model: str = ""
    ttft_us: int | None = None
    http_status: int | None = None
    stop_reason: str | None = None
    error_type: str | None = None
    output_chars: int = 0
    attempts: tuple[Attempt, ...] = ()
    schema: int = SCHEMA
