"""What moves a tenant's spendable money: grants, top-ups, credit lines, charges.

Each call is exactly once under its key and is followed by a publish after the commit, except
`charge_usage`: the ingest publishes what it posted together with its requests.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from django.db import transaction
from django.db.models import F, Q

from accounts.models import Tenant
from accounts.services.audit import record_audit
from accounts.services.policy import touch_tenant
from billing.locks import lock_wallet
from billing.models.ledger import CreditGrant, LedgerAccount, LedgerTxn, Wallet
from billing.services.ledger import Line, account_for, credit, debit, post
from billing.services.posting import publish_wallet
from billing.snapshots import publish_terms
from turnpike.control.caller import Caller, actor_of
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids
from turnpike.kernel.errors import Conflict, InvalidInput

EXPIRED_AT_ONCE_MAX = 500
SYSTEM = "system"


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletState:
    """A wallet as one posting left it; the version orders publications."""

    balance_nano: int
    version: int
    credit_limit_nano: int


def grant_credit(
    *,
    tenant: int,
    amount: int,
    idempotency_key: str,
    reason: str,
    actor: Caller | str,
    expires_at: datetime | None = None,
) -> CreditGrant:
    """Give a tenant promotional credit; the same key again returns the first grant.

    Raises Conflict where the key came with another tenant, amount or expiry.
    """
    _check_amount(amount)
    with platform_scope("billing.grant_credit"):
        wallet = lock_wallet(tenant=tenant)
        grant = CreditGrant.objects.filter(idempotency_key=idempotency_key).first()
        if grant is not None:
            _check_same(
                (grant.tenant_id, grant.amount_nano, grant.expires_at),
                (tenant, amount, expires_at),
                key=idempotency_key,
            )
            return grant
        uuid = ids.uuid7()
        account = account_for(tenant=tenant, kind="promo", ref=str(uuid), currency=wallet.currency)
        expense = account_for(kind="promo_expense", currency=wallet.currency)
        grant = CreditGrant.objects.create(
            tenant_id=tenant,
            uuid=uuid,
            account=account,
            amount_nano=amount,
            reason=reason,
            actor=actor_of(actor),
            idempotency_key=idempotency_key,
            expires_at=expires_at,
        )
        post(
            key=f"grant:{uuid}",
            kind="grant",
            currency=wallet.currency,
            lines=[debit(expense.pk, amount), credit(account.pk, amount)],
            actor=actor_of(actor),
            memo={"reason": reason},
        )
        _audit(tenant, "credit.granted", {"amount_nano": amount}, actor=actor, reason=reason)
        _publish_on_commit(tenant)
    return grant


def top_up(
    *,
    tenant: int,
    amount: int,
    idempotency_key: str,
    actor: Caller | str,
    provider: str = "manual",
    reason: str = "",
) -> WalletState:
    """Book money that the tenant paid ahead; the same key again changes nothing."""
    _check_amount(amount)
    with platform_scope("billing.top_up"):
        wallet = lock_wallet(tenant=tenant)
        cash = account_for(kind="cash", ref=provider, currency=wallet.currency)
        prepaid = account_for(tenant=tenant, kind="prepaid", currency=wallet.currency)
        posted = post(
            key=f"top_up:{idempotency_key}",
            kind="top_up",
            currency=wallet.currency,
            lines=[debit(cash.pk, amount), credit(prepaid.pk, amount)],
            actor=actor_of(actor),
            memo={"reason": reason},
        )
        if posted is not None:
            _audit(tenant, "credit.topped_up", {"amount_nano": amount}, actor=actor, reason=reason)
            _publish_on_commit(tenant)
        return _state_of(tenant)


def set_credit_line(
    *, tenant: int, limit: int, actor: Caller | str, reason: str = ""
) -> WalletState:
    """How far below zero a tenant may go, in nanos; holds from the next request."""
    if limit < 0:
        raise InvalidInput(f"A credit line is not below zero: {limit}.", field="credit_limit")
    return _change_wallet(tenant, {"credit_limit_nano": limit}, actor=actor, reason=reason)


def set_mode(*, tenant: int, mode: str, actor: Caller | str, reason: str = "") -> WalletState:
    """Prepaid or postpaid, from the next charge on."""
    if mode not in Wallet.Mode.values:
        raise InvalidInput(f"No such mode: {mode!r}.", field="mode")
    return _change_wallet(tenant, {"mode": mode}, actor=actor, reason=reason)


def charge_usage(*, tenant: int, amount: int, posting_id: str, currency: str) -> WalletState:
    """Charge usage, or give some back where the amount is negative; once for each posting.

    Prepaid tenants pay with promotional credit by earliest expiry, then with what they paid ahead,
    which may go below zero: what an upstream has billed is always charged. Others owe it as
    unbilled usage. Runs in the caller's transaction and `platform_scope`, and publishes nothing.
    """
    return _charge(
        tenant,
        amount,
        currency,
        key=f"usage:{posting_id}:{tenant}",
        kind="usage",
        memo={"amount_nano": amount, "posting": posting_id},
    )


def charge_correction(
    *, tenant: int, amount: int, key: str, currency: str, actor: str, reason: str
) -> WalletState:
    """Charge what usage had been charged too little, or give back too much; as `charge_usage`."""
    memo: dict[str, int | str] = {"amount_nano": amount, "reason": reason}
    _publish_on_commit(tenant)
    return _charge(tenant, amount, currency, key=key, kind="correction", memo=memo, actor=actor)


def _charge(
    tenant: int,
    amount: int,
    currency: str,
    *,
    key: str,
    kind: str,
    memo: Mapping[str, int | str],
    actor: str = SYSTEM,
) -> WalletState:
    wallet = lock_wallet(tenant=tenant, currency=currency)
    if wallet.currency != currency:
        raise Conflict(f"The wallet is kept in {wallet.currency}, the usage in {currency}.")
    posted = LedgerTxn.objects.filter(idem_key=key).values_list("memo", flat=True).first()
    if posted is not None:
        _check_same(posted.get("amount_nano"), amount, key=key)
    elif amount != 0:
        revenue = account_for(tenant=tenant, kind="revenue", currency=currency)
        lines = _charge_lines(wallet, amount) if amount > 0 else _refund_lines(wallet, -amount)
        whole = credit(revenue.pk, amount) if amount > 0 else debit(revenue.pk, -amount)
        post(
            key=key,
            kind=kind,
            currency=currency,
            lines=[*lines, whole],
            actor=actor,
            memo=dict(memo),
        )
    return _state_of(tenant)


def expire_grants(*, at: datetime) -> int:
    """Take back what is left of grants that ended before an instant; how many there were."""
    with platform_scope("billing.expire_grants"):
        due = list(
            CreditGrant.objects.filter(expired_at=None, expires_at__lte=at)
            .order_by("expires_at", "id")
            .values_list("pk", "tenant_id")[:EXPIRED_AT_ONCE_MAX]
        )
    for grant, tenant in due:
        with platform_scope("billing.expire_grants"):
            _expire_grant(grant=grant, tenant=tenant, at=at)
    return len(due)


def _expire_grant(*, grant: int, tenant: int, at: datetime) -> None:
    wallet = lock_wallet(tenant=tenant)
    row = CreditGrant.objects.select_related("account").get(pk=grant)
    if row.expired_at is not None:
        return
    left = row.account.balance_nano
    if left > 0:
        breakage = account_for(kind="breakage", currency=wallet.currency)
        post(
            key=f"grant_expiry:{row.uuid}",
            kind="grant_expiry",
            currency=wallet.currency,
            lines=[debit(row.account_id, left), credit(breakage.pk, left)],
            actor=SYSTEM,
        )
        _publish_on_commit(tenant)
    CreditGrant.objects.filter(pk=grant).update(expired_at=at)


def _charge_lines(wallet: Wallet, amount: int) -> list[Line]:
    if wallet.mode == Wallet.Mode.POSTPAID:
        return [debit(_own_account(wallet, "unbilled").pk, amount)]
    lines = []
    for account in _spendable_promos(wallet):
        part = min(amount, account.balance_nano)
        if part > 0:
            lines.append(debit(account.pk, part))
            amount -= part
    if amount > 0:
        lines.append(debit(_own_account(wallet, "prepaid").pk, amount))
    return lines


def _refund_lines(wallet: Wallet, amount: int) -> list[Line]:
    """Give back in the reverse of the burn order, to no account more than was taken from it."""
    if wallet.mode == Wallet.Mode.POSTPAID:
        return [credit(_own_account(wallet, "unbilled").pk, amount)]
    prepaid = _own_account(wallet, "prepaid")
    to_prepaid = min(amount, prepaid.debits)
    amount -= to_prepaid
    lines = []
    for account in reversed(_spendable_promos(wallet)):
        part = min(amount, account.debits)
        if part > 0:
            lines.append(credit(account.pk, part))
            amount -= part
    # What belongs to credit that has expired since becomes credit without an end.
    to_prepaid += amount
    return [*lines, credit(prepaid.pk, to_prepaid)] if to_prepaid else lines


def _own_account(wallet: Wallet, kind: str) -> LedgerAccount:
    return account_for(tenant=wallet.tenant_id, kind=kind, currency=wallet.currency)


def _spendable_promos(wallet: Wallet) -> list[LedgerAccount]:
    alive = Q(grant__expires_at=None) | Q(grant__expires_at__gt=clock.utc_now())
    accounts = LedgerAccount.objects.filter(
        alive, tenant_id=wallet.tenant_id, kind="promo", currency=wallet.currency
    )
    # PostgreSQL sorts nulls last: credit without an end is burnt after all that has one.
    return list(accounts.order_by("grant__expires_at", "id"))


def _change_wallet(
    tenant: int, values: Mapping[str, int | str], *, actor: Caller | str, reason: str
) -> WalletState:
    with platform_scope("billing.change_wallet"):
        wallet = lock_wallet(tenant=tenant)
        before = {name: getattr(wallet, name) for name in values}
        Wallet.objects.filter(tenant_id=tenant).update(**values, version=F("version") + 1)
        _audit(tenant, "wallet.changed", values, actor=actor, reason=reason, before=before)
        _publish_on_commit(tenant)
        transaction.on_commit(partial(publish_terms, tenant))
        touch_tenant(tenant)
        return _state_of(tenant)


def _audit(
    tenant: int,
    action: str,
    after: Mapping[str, int | str],
    *,
    actor: Caller | str,
    reason: str,
    before: Mapping[str, int | str] | None = None,
) -> None:
    record_audit(
        actor=actor,
        tenant=tenant,
        action=action,
        target=Tenant.objects.get(pk=tenant).public_id,
        before=before,
        after=after,
        reason=reason,
    )


def _state_of(tenant: int) -> WalletState:
    wallet = Wallet.objects.get(tenant_id=tenant)
    return WalletState(
        balance_nano=wallet.balance_nano,
        version=wallet.version,
        credit_limit_nano=wallet.credit_limit_nano,
    )


def _publish_on_commit(tenant: int) -> None:
    transaction.on_commit(partial(publish_wallet, tenant=tenant))


def _check_amount(amount: int) -> None:
    if amount <= 0:
        raise InvalidInput(f"The amount must be above zero, not {amount}.", field="amount")


def _check_same(stored: object, given: object, *, key: str) -> None:
    if stored != given:
        raise Conflict(f"The key {key!r} was used before with other content.")
