"""create_codes, redeem_code: codes that are worth credit. A code is shown once, kept as a digest.

A tenant redeems a code once; a code is redeemed as often as it says, however many try at once.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.core.cache import cache

from accounts.services.audit import record_audit
from billing.locks import lock_wallet
from billing.models.ledger import CreditGrant
from billing.models.payments import Redemption, RedemptionCode
from billing.services.wallet import grant_credit
from turnpike.control.caller import Caller
from turnpike.control.scope import platform_scope
from turnpike.kernel import ids
from turnpike.kernel.errors import Conflict, InvalidInput, LimitReached, NotFound
from turnpike.kernel.money import NANOS_PER_UNIT

# Without letters and digits that look alike; 20 of them are 98 bits, which nobody guesses.
ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
GROUPS, GROUP_LENGTH = 4, 5
TYPED_LENGTH_MAX = 64
USES_MAX = 1_000_000
COUNT_MAX = 200
BATCH = "codebatch"
AMOUNT_MAX = 100_000 * NANOS_PER_UNIT
CREDIT_DAYS_MAX = 3_650
TRIES_MAX, TRIES_SECONDS = 10, 3_600


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCode:
    """A code and its words, which are not shown again; empty where it had been made before."""

    row: RedemptionCode
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeTerms:
    """What a code gives, how often and until when; `credit_days` is how long the credit lives."""

    amount: int
    uses_max: int = 1
    currency: str = "USD"
    ends_at: datetime | None = None
    credit_days: int | None = None


def create_code(*, terms: CodeTerms, key: str, reason: str, caller: Caller) -> NewCode:
    """Make a code; the same key again makes none. Raises InvalidInput beyond the bounds."""
    check_terms(terms)
    with platform_scope("billing.create_code"):
        made = _make(terms, key=key, reason=reason, caller=caller, batch=None)
        if made.words:
            after = {"amount_nano": terms.amount, "uses_max": terms.uses_max}
            _audit(made.row.public_id, "code.created", caller, after=after, reason=reason)
    return made


def create_codes(
    *, count: int, terms: CodeTerms, batch: UUID, reason: str, caller: Caller
) -> list[NewCode]:
    """Make a batch of codes; the same batch again makes none and gives those that it has.

    Raises InvalidInput beyond the bounds.
    """
    check_terms(terms)
    if not 1 <= count <= COUNT_MAX:
        raise InvalidInput(f"A batch has 1 to {COUNT_MAX} codes.", field="count")
    with platform_scope("billing.create_codes"):
        made = [
            _make(terms, key=f"batch:{batch}:{number}", reason=reason, caller=caller, batch=batch)
            for number in range(count)
        ]
        if any(code.words for code in made):
            after = {"amount_nano": terms.amount, "uses_max": terms.uses_max, "codes": count}
            _audit(batch_id(batch), "code.created", caller, after=after, reason=reason)
    return made


def check_terms(terms: CodeTerms) -> None:
    """Raise InvalidInput for what no code may be worth."""
    if not 0 < terms.amount <= AMOUNT_MAX:
        raise InvalidInput("The amount must be above zero and at most 100,000.", field="amount")
    if not 1 <= terms.uses_max <= USES_MAX:
        raise InvalidInput(f"A code has 1 to {USES_MAX} uses.", field="uses_max")
    if terms.credit_days is not None and not 1 <= terms.credit_days <= CREDIT_DAYS_MAX:
        raise InvalidInput(f"Days are 1 to {CREDIT_DAYS_MAX}.", field="credit_days")


def batch_id(batch: UUID) -> str:
    """A batch as pages and the audit log name it."""
    return ids.public_id(BATCH, batch)


def withdraw_code(*, code: RedemptionCode, reason: str, caller: Caller, at: datetime) -> None:
    """Let nobody redeem it any more; what was redeemed stays."""
    with platform_scope("billing.withdraw_code"):
        changed = RedemptionCode.objects.filter(pk=code.pk, withdrawn_at=None).update(
            withdrawn_at=at
        )
        if changed:
            after = {"uses": code.uses}
            _audit(code.public_id, "code.withdrawn", caller, after=after, reason=reason)


def withdraw_batch(*, batch: UUID, reason: str, caller: Caller, at: datetime) -> int:
    """Let nobody redeem what is left of a batch; how many codes that ended."""
    with platform_scope("billing.withdraw_batch"):
        changed = RedemptionCode.objects.filter(batch=batch, withdrawn_at=None).update(
            withdrawn_at=at
        )
        if changed:
            after = {"codes": changed}
            _audit(batch_id(batch), "code.withdrawn", caller, after=after, reason=reason)
    return changed


def redeem_code(*, tenant: int, words: str, caller: Caller, at: datetime) -> CreditGrant:
    """Turn a code into credit.

    Raises NotFound for a code that is wrong, over or used up, Conflict where the tenant has
    redeemed it, LimitReached after too many tries. Which of the first it is nobody learns.
    """
    count_try(tenant)
    with platform_scope("billing.redeem_code"):
        wallet = lock_wallet(tenant=tenant)
        codes = RedemptionCode.objects.select_for_update().filter(withdrawn_at=None)
        code = codes.filter(digest=_digest(words[:TYPED_LENGTH_MAX])).first()
        if code is None or (code.ends_at is not None and code.ends_at <= at):
            raise NotFound("This code is not valid.")
        if Redemption.objects.filter(tenant_id=tenant, code=code).exists():
            raise Conflict("This code was redeemed here before.")
        if code.uses >= code.uses_max or code.currency != wallet.currency:
            raise NotFound("This code is not valid.")
        days = code.credit_days
        grant = grant_credit(
            tenant=tenant,
            amount=code.amount_nano,
            idempotency_key=f"code:{code.uuid}:{tenant}",
            reason=code.reason,
            actor=caller,
            expires_at=None if days is None else at + timedelta(days=days),
        )
        Redemption.objects.create(
            tenant_id=tenant, code=code, grant=grant, actor=caller.actor, created_at=at
        )
        code.uses += 1
        code.save(update_fields=["uses"])
    return grant


def count_try(tenant: int) -> None:
    """Count a try. Raises LimitReached beyond ten an hour."""
    name = f"redeem:{tenant}"
    cache.add(name, 0, timeout=TRIES_SECONDS)
    try:
        tries = cache.incr(name)
    except ValueError:
        # It ended between the two calls.
        tries = 1
    if tries > TRIES_MAX:
        raise LimitReached("Too many codes were tried. Try again in an hour.")


def _make(
    terms: CodeTerms, *, key: str, reason: str, caller: Caller, batch: UUID | None
) -> NewCode:
    words = "-".join(
        "".join(secrets.choice(ALPHABET) for _ in range(GROUP_LENGTH)) for _ in range(GROUPS)
    )
    row, is_new = RedemptionCode.objects.get_or_create(
        idempotency_key=key,
        defaults={
            "digest": _digest(words),
            "hint": words[-GROUP_LENGTH:],
            "amount_nano": terms.amount,
            "currency": terms.currency,
            "uses_max": terms.uses_max,
            "ends_at": terms.ends_at,
            "credit_days": terms.credit_days,
            "batch": batch,
            "actor": caller.actor,
            "reason": reason,
        },
    )
    return NewCode(row=row, words=words if is_new else "")


def _digest(words: str) -> bytes:
    plain = "".join(letter for letter in words.upper() if letter in ALPHABET)
    return hashlib.sha256(plain.encode()).digest()


def _audit(target: str, action: str, caller: Caller, *, after: dict[str, int], reason: str) -> None:
    record_audit(
        actor=caller, tenant=None, action=action, target=target, after=after, reason=reason
    )
