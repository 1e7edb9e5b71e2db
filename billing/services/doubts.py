"""accept_doubt, charge_doubt: a person decides about usage that nobody can be sure of.

Accepted: the operator bears it, and the attempt counts what the upstream billed. Charged: the
request's event is revised at the highest rank, at most its hold. Each attempt is decided once; the
same decision again changes nothing.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Sum

from accounts.models import Tenant
from accounts.services.audit import record_audit
from accounts.services.settings import check_reason
from billing.locks import lock_wallet
from billing.models.differences import UsageReview
from billing.models.usage import UpstreamAttempt
from billing.models.usage import UsageEvent as EventRow
from billing.queries.doubts import WHOLE_REQUEST
from billing.services.charging import charge_for
from billing.services.correction import event_of
from billing.services.events import write_attempts
from billing.services.posting import publish_wallet
from billing.services.prices import load_price_sets
from billing.services.usage import Incoming, post_usage
from turnpike.contracts.usage import (
    OUTCOME_RECONCILED,
    RANK_RECONCILED,
    STATUS_OF_RANK,
    Attempt,
    UsageEvent,
)
from turnpike.control.caller import Caller
from turnpike.control.scope import platform_scope
from turnpike.kernel import ids
from turnpike.kernel.codec import to_json
from turnpike.kernel.errors import Conflict, InvalidInput, NotFound
from turnpike.kernel.money import format_amount, micros_up

COUNT_MAX = 2**31 - 1
# The kinds of a usage report, and where an answer's usage has them.
KINDS = ("uncached_input", "output", "cache_read", "cache_write_5m", "cache_write_1h", "web_search")
UNLIMITED_MICRO = micros_up(2**62)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """A request while it is decided about."""

    events: Sequence[EventRow]
    attempts: Sequence[UpstreamAttempt]
    attempt: int

    @property
    def newest(self) -> EventRow:
        """What is known best."""
        return self.events[-1]

    @property
    def charged(self) -> int:
        """What the tenant was charged so far."""
        return sum(row.amount_nano for row in self.events)


def usage_of(counts: Mapping[str, int]) -> dict[str, Any] | None:
    """Counts by kind as an answer's usage has them; None where nothing was used."""
    for kind, count in counts.items():
        if kind not in KINDS or not 0 <= count <= COUNT_MAX:
            raise InvalidInput(f"{kind} must be from 0 to {COUNT_MAX}.", field=kind)
    found = {kind: counts.get(kind, 0) for kind in KINDS}
    if not any(found.values()):
        return None
    return {
        "input_tokens": found["uncached_input"],
        "output_tokens": found["output"],
        "cache_read_input_tokens": found["cache_read"],
        "cache_creation_input_tokens": found["cache_write_5m"] + found["cache_write_1h"],
        "cache_creation": {
            "ephemeral_5m_input_tokens": found["cache_write_5m"],
            "ephemeral_1h_input_tokens": found["cache_write_1h"],
        },
        "server_tool_use": {"web_search_requests": found["web_search"]},
    }


def accept_doubt(
    *,
    caller: Caller,
    request: UUID,
    attempt: int,
    counts: Mapping[str, int],
    reason: str,
) -> UsageReview:
    """Leave usage to the operator; `counts` is what the upstream billed, empty: nothing."""
    usage = usage_of(counts)
    with platform_scope("accept doubt"):
        case = _open_case(request, attempt)
        done = _done_before(case, UsageReview.Decision.ACCEPTED, usage)
        if done is not None:
            return done
        if attempt == WHOLE_REQUEST:
            accepted = sum(row.waived_nano for row in case.events)
        else:
            accepted = _worth(case, usage)
            event = replace(event_of(case.newest), attempts=(_settled(case, usage),))
            write_attempts([(request, event)])
        return _keep(
            caller,
            case,
            decision=UsageReview.Decision.ACCEPTED,
            usage=usage,
            accepted=accepted,
            reason=reason,
        )


def charge_doubt(
    *,
    caller: Caller,
    request: UUID,
    attempt: int,
    counts: Mapping[str, int],
    reason: str,
) -> UsageReview:
    """Charge what the upstream billed, at most the hold, as the last word about the request.

    Raises Conflict where the request was settled for good, or another attempt of it was paid.
    """
    usage = usage_of(counts)
    if usage is None:
        raise InvalidInput("Enter what the upstream billed.", field="uncached_input")
    with platform_scope("charge doubt"):
        case = _open_case(request, attempt)
        done = _done_before(case, UsageReview.Decision.CHARGED, usage)
        if done is not None:
            return done
        _refuse_charging(case)
        before = case.charged
        if not post_usage(events=[_incoming(_last_word(case, usage))]).inserted:
            raise Conflict("It cannot be posted; see the dead letters.")
        sums = EventRow.objects.filter(request_id=request).aggregate(
            charged=Sum("amount_nano"), waived=Sum("waived_nano")
        )
        row = _keep(
            caller,
            case,
            decision=UsageReview.Decision.CHARGED,
            usage=usage,
            charged=int(sums["charged"]) - before,
            accepted=int(sums["waived"]),
            reason=reason,
        )
        transaction.on_commit(partial(publish_wallet, tenant=case.newest.tenant_id))
    return row


def rehearse_charge(*, request: UUID, counts: Mapping[str, int]) -> tuple[int, int]:
    """What charging these counts would make of a request: the whole charge, and what is waived."""
    usage = usage_of(counts)
    newest = EventRow.objects.filter(request_id=request).order_by("-revision").first()
    if newest is None:
        raise NotFound("There is no such request.")
    price_set = load_price_sets([newest.price_set_id])[newest.price_set_id]
    charge = charge_for(
        replace(event_of(newest), usage=usage or {}, rank=RANK_RECONCILED), price_set=price_set
    )
    return charge.numbers["amount_nano"], charge.numbers["waived_nano"]


def why_not_charged(events: Sequence[EventRow], attempts: Sequence[UpstreamAttempt]) -> str:
    """Why usage in doubt can only be accepted; empty where it may be charged."""
    if events[-1].rank >= RANK_RECONCILED:
        return "settled"
    if any(row.is_billed and row.outcome == "answered" for row in attempts):
        return "paid"
    return ""


def _open_case(request: UUID, attempt: int) -> _Case:
    tenant = EventRow.objects.filter(request_id=request).values_list("tenant_id", flat=True).first()
    if tenant is None:
        raise NotFound("There is no such request.")
    lock_wallet(tenant=tenant)
    attempts = list(UpstreamAttempt.objects.filter(request_id=request).order_by("attempt"))
    if attempt != WHOLE_REQUEST and attempt not in {row.attempt for row in attempts}:
        raise NotFound("There is no such attempt.")
    events = list(EventRow.objects.filter(request_id=request).order_by("revision"))
    return _Case(events=events, attempts=attempts, attempt=attempt)


def _done_before(case: _Case, decision: str, usage: Mapping[str, Any] | None) -> UsageReview | None:
    row = UsageReview.objects.filter(
        request_id=case.newest.request_id, attempt=case.attempt
    ).first()
    if row is not None and (row.decision != decision or row.usage != usage):
        raise Conflict("It was decided before, in another way.")
    return row


def _refuse_charging(case: _Case) -> None:
    others = [row for row in case.attempts if row.attempt != case.attempt]
    why = why_not_charged(case.events, others if case.attempt else [])
    if why == "settled":
        raise Conflict("The request was settled for good; it can only be accepted.")
    if why == "paid":
        raise Conflict("Another attempt answered the request and was paid; this one is yours.")


def _worth(case: _Case, usage: Mapping[str, Any] | None) -> int:
    """What the usage would have cost the tenant."""
    if usage is None:
        return 0
    price_set = load_price_sets([case.newest.price_set_id])[case.newest.price_set_id]
    event = replace(
        event_of(case.newest), usage=usage, rank=RANK_RECONCILED, hold_micro=UNLIMITED_MICRO
    )
    return charge_for(event, price_set=price_set).numbers["amount_nano"]


def _settled(case: _Case, usage: Mapping[str, Any] | None) -> Attempt:
    row = next(row for row in case.attempts if row.attempt == case.attempt)
    return Attempt(
        n=row.attempt,
        upstream=row.upstream_id,
        credential=row.credential_id,
        upstream_request_id=row.upstream_request_id,
        outcome=OUTCOME_RECONCILED,
        usage=usage,
    )


def _last_word(case: _Case, usage: Mapping[str, Any]) -> UsageEvent:
    row = case.newest
    return replace(
        event_of(row),
        rank=RANK_RECONCILED,
        status=STATUS_OF_RANK[RANK_RECONCILED],
        usage=usage,
        member=row.member,
        stream=row.is_stream,
        requested_model=row.requested_model,
        ttft_us=row.ttft_us,
        http_status=row.http_status,
        error_type=row.error_type,
        output_chars=sum(item.output_chars for item in case.events),
        attempts=(_settled(case, usage),) if case.attempt != WHOLE_REQUEST else (),
    )


def _incoming(event: UsageEvent) -> Incoming:
    body = to_json(event).encode()
    return Incoming(
        event=event,
        request=UUID(event.rid),
        fingerprint=hashlib.sha256(body).digest(),
        body=body,
    )


def _keep(
    caller: Caller,
    case: _Case,
    *,
    decision: str,
    usage: Mapping[str, Any] | None,
    accepted: int,
    reason: str,
    charged: int = 0,
) -> UsageReview:
    checked, newest = check_reason(reason), case.newest
    row = UsageReview.objects.create(
        tenant=Tenant.objects.get(pk=newest.tenant_id),
        request_id=newest.request_id,
        attempt=case.attempt,
        decision=decision,
        usage=usage,
        charged_nano=charged,
        accepted_nano=accepted,
        currency=newest.currency,
        reason=checked,
        actor=caller.actor,
    )
    record_audit(
        actor=caller,
        tenant=newest.tenant_id,
        action=f"usage.{decision}",
        target=ids.public_id(ids.REQUEST, newest.request_id),
        after={
            "attempt": case.attempt,
            "charged": format_amount(charged),
            "accepted": format_amount(accepted),
            "currency": newest.currency,
        },
        reason=checked,
    )
    return row
