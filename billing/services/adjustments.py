"""post_adjustment, undo_adjustment: money that a person moves by hand, with a reason."""

from functools import partial

from django.db import transaction

from accounts.models import Tenant
from accounts.services.audit import record_audit
from accounts.services.settings import check_reason
from billing.locks import lock_wallet
from billing.models.ledger import LedgerTxn
from billing.services.ledger import PostedTxn, account_for, credit, debit, post, reverse
from billing.services.posting import publish_wallet
from turnpike.control.caller import Caller
from turnpike.control.scope import platform_scope
from turnpike.kernel.errors import Conflict, InvalidInput
from turnpike.kernel.money import format_amount

KIND = "manual"
AMOUNT_MAX = 1_000_000 * 1_000_000_000
# What stands on the other side, by what a person says it is.
COUNTER_ACCOUNTS = ("correction", "cash", "bad_debt", "fees")


def post_adjustment(
    *, caller: Caller, tenant: Tenant, amount: int, counter: str, key: str, reason: str
) -> PostedTxn | None:
    """Add to what a tenant can spend, or take from it (below zero); None if it was done before.

    Raises InvalidInput for an amount of nothing or beyond reason, and for an unknown other side.
    """
    checked = check_reason(reason)
    if amount == 0 or abs(amount) > AMOUNT_MAX:
        raise InvalidInput("The amount is nothing, or too much.", field="amount")
    if counter not in COUNTER_ACCOUNTS:
        raise InvalidInput("The other account is not known.", field="counter")
    with platform_scope("billing.post_adjustment"):
        wallet = lock_wallet(tenant=tenant.pk)
        own = account_for(tenant=tenant.pk, kind="prepaid", currency=wallet.currency)
        other = account_for(kind=counter, currency=wallet.currency)
        size = abs(amount)
        lines = (
            [debit(other.pk, size), credit(own.pk, size)]
            if amount > 0
            else [debit(own.pk, size), credit(other.pk, size)]
        )
        posted = post(
            key=f"{KIND}:{key}",
            kind=KIND,
            currency=wallet.currency,
            lines=lines,
            actor=caller.actor,
            memo={"reason": checked, "counter": counter},
        )
        if posted is not None:
            record_audit(
                actor=caller,
                tenant=tenant.pk,
                action="ledger.adjusted",
                target=tenant.public_id,
                after={"amount": format_amount(amount), "counter": counter, "posting": posted.txn},
                reason=checked,
            )
            transaction.on_commit(partial(publish_wallet, tenant=tenant.pk))
    return posted


def undo_adjustment(*, caller: Caller, txn: LedgerTxn, reason: str) -> PostedTxn:
    """Undo an entry made by hand by its mirror image, once."""
    checked = check_reason(reason)
    if txn.kind != KIND:
        raise Conflict("Only entries made by hand are undone by hand.")
    with platform_scope("billing.undo_adjustment"):
        posted = reverse(txn=txn.pk, actor=caller.actor, reason=checked)
        if posted is None:
            raise Conflict("It was undone before.")
        record_audit(
            actor=caller,
            tenant=txn.tenant_id,
            action="ledger.reversed",
            target=txn.idem_key[:64],
            after={"posting": posted.txn},
            reason=checked,
        )
        if txn.tenant_id is not None:
            transaction.on_commit(partial(publish_wallet, tenant=txn.tenant_id))
    return posted
