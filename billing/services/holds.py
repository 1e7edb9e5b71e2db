"""Holds that outlive a request: taken in Redis with the wallet's other holds, kept in PostgreSQL.

From Redis to PostgreSQL without a gap: the script takes the hold while the wallet row is locked,
the row of the hold is committed, and its publication takes the amount out of `posted` in the step
that takes it out of `held`. Whoever dies in between leaves a record that the sweep resolves: it
locks the wallet too, so either the hold is committed by then or it never will be.
"""

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import redis
from django.db import transaction
from django.db.models import F

from billing.locks import lock_wallet
from billing.models.batches import LedgerHold
from billing.models.ledger import Wallet
from billing.services.ledger import account_for
from billing.services.posting import publish_wallet
from billing.services.rollups import open_counters
from turnpike.contracts.snapshots import PERIOD_DAY, Budget
from turnpike.contracts.usage import RANK_RECONCILED, RANK_VOID
from turnpike.control.redis import script, text_of
from turnpike.control.scope import platform_scope
from turnpike.kernel import keyspace, money
from turnpike.kernel.errors import InsufficientCredit, Unavailable

logger = logging.getLogger(__name__)

GRANTED_NOW, GRANTED_BEFORE = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Whose money is held, and the blocking budgets of each scope."""

    tenant: int
    workspace: int
    key: int
    budgets: Sequence[tuple[str, Budget]] = ()


def take_hold(
    *,
    holder: Holder,
    hold: UUID,
    ref: str,
    amount_micro: int,
    at: datetime,
    expires_at: datetime,
) -> LedgerHold:
    """Hold an amount for the caller's transaction, which keeps the wallet locked to its end.

    Raises InsufficientCredit where credit or a blocking budget does not cover it, Unavailable where
    Redis cannot say.
    """
    wallet = lock_wallet(tenant=holder.tenant)
    kind = "unbilled" if wallet.mode == Wallet.Mode.POSTPAID else "prepaid"
    account = account_for(tenant=holder.tenant, kind=kind, currency=wallet.currency)
    # Counters that exist are published, so that a hold that ends is seen to end.
    open_counters(tenant=holder.tenant, workspace=holder.workspace, key=holder.key, at=at)
    amount_nano = money.nanos_of_micros(amount_micro)
    row = LedgerHold.objects.create(
        id=hold,
        tenant_id=holder.tenant,
        account_id=account.pk,
        workspace_id=holder.workspace,
        api_key_id=holder.key,
        ref=ref,
        amount_nano=amount_nano,
        remaining_nano=amount_nano,
        created_at=at,
        expires_at=expires_at,
    )
    _take_in_redis(holder, hold=hold, amount_micro=amount_micro, at=at)
    transaction.on_commit(lambda: publish_hold(tenant=holder.tenant, hold=hold))
    return row


def shrink_hold(*, hold: UUID, released_nano: int, posted_nano: int) -> None:
    """Let go of the part of a hold whose work has ended, of which so much was charged.

    Runs under the wallet's lock; the caller publishes.
    """
    LedgerHold.objects.filter(pk=hold, state=LedgerHold.State.PENDING).update(
        remaining_nano=F("remaining_nano") - released_nano,
        posted_nano=F("posted_nano") + posted_nano,
    )


def end_hold(*, hold: UUID, at: datetime) -> None:
    """The work has ended: whatever is still held is free, and the hold has its last word."""
    row = LedgerHold.objects.select_for_update().get(pk=hold)
    if row.state != LedgerHold.State.PENDING:
        return
    was_charged = row.posted_nano > 0
    state = LedgerHold.State.POSTED if was_charged else LedgerHold.State.VOIDED
    if not was_charged and at >= row.expires_at:
        state = LedgerHold.State.EXPIRED
    LedgerHold.objects.filter(pk=hold, state=LedgerHold.State.PENDING).update(
        state=state, remaining_nano=0, resolved_at=at
    )


def publish_hold(*, tenant: int, hold: UUID) -> None:
    """Publish a committed hold; where Redis is away, the sweep does it later."""
    try:
        publish_wallet(tenant=tenant, posted={str(hold): RANK_VOID})
    except redis.RedisError:
        logger.warning("hold.not_published", extra={"hold": str(hold)}, exc_info=True)


def committed_holds(ids: Iterable[str]) -> set[str]:
    """Those of these ids that are holds which PostgreSQL has taken over."""
    rows = LedgerHold.objects.filter(pk__in=list(ids)).values_list("pk", flat=True)
    return {str(row) for row in rows}


def void_dead_hold(*, tenant: int, hold: str) -> bool:
    """Free a hold in Redis that no transaction can commit any more; whether it was one."""
    with platform_scope("void dead hold"):
        # Whoever took it in Redis holds this lock until they commit or are gone.
        lock_wallet(tenant=tenant)
        is_committed = LedgerHold.objects.filter(pk=hold).exists()
        rank = RANK_VOID if is_committed else RANK_RECONCILED
        publish_wallet(tenant=tenant, posted={hold: rank})
    return not is_committed


def _take_in_redis(holder: Holder, *, hold: UUID, amount_micro: int, at: datetime) -> None:
    tenant, shard = holder.tenant, keyspace.shard_of(holder.tenant)
    day = at.astimezone(UTC).strftime("%Y-%m-%d")
    checks = [
        {
            "scope": scope,
            "f": f"s:{scope}:{day if budget.period == PERIOD_DAY else day[:7]}",
            "limit": budget.limit_micro,
        }
        for scope, budget in holder.budgets
    ]
    scopes = ",".join(dict.fromkeys(scope for scope, _ in holder.budgets))
    try:
        code, word, available = script("hold")(
            keys=[
                keyspace.wallet(tenant),
                keyspace.budgets(tenant),
                keyspace.record(tenant, str(hold)),
                keyspace.unposted(shard),
                keyspace.policy(shard),
            ],
            args=[tenant, str(hold), amount_micro, json.dumps(checks), scopes],
        )
    except redis.RedisError as error:
        raise Unavailable("The service is recovering. Nothing was charged; try again.") from error
    if code not in (GRANTED_NOW, GRANTED_BEFORE):
        raise _refusal(text_of(word), text_of(available), amount_micro=amount_micro)


def _refusal(reason: str, available: str, *, amount_micro: int) -> Exception:
    if reason == "cold":
        return Unavailable("The service is starting. Try again shortly.")
    held = money.format_amount(money.nanos_of_micros(amount_micro))
    left = money.format_amount(money.nanos_of_micros(int(available or 0)))
    what = "budget" if reason.startswith("budget") else "credit"
    return InsufficientCredit(
        f"The batch may cost up to ${held}, and ${left} of {what} is left. Nothing was charged."
    )
