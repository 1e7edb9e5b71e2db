"""Auto-reload with its caps and its end, warnings in days, and codes that are worth credit."""

from datetime import timedelta
from typing import Any

import pytest

from accounts.models import Mail
from billing.models.ledger import CreditGrant
from billing.models.payments import CreditPlan, Payment, RedemptionCode
from billing.models.usage import SpendCounter
from billing.services.payments import low_balance
from billing.services.payments.low_balance import warn_low_balances
from billing.services.payments.plans import plan_of, set_plan
from billing.services.payments.reload import run_auto_reloads
from billing.services.redemption import CodeTerms, create_code, redeem_code, withdraw_code
from billing.services.wallet import charge_usage, grant_credit
from tests.billing.ledger_world import broken_invariants
from tests.billing.payment_world import OPERATOR, TEN, make_payer, paid, send, tenant_of
from tests.billing.stripe_world import CENT, StripeServer, balances, event
from tests.support.threads import at_once
from turnpike.control.caller import Caller
from turnpike.control.scope import platform_scope
from turnpike.kernel import clock, ids
from turnpike.kernel.errors import Conflict, InvalidInput, LimitReached, NotFound

pytestmark = pytest.mark.django_db


@pytest.fixture
def owner(db: None) -> Caller:
    """Somebody who may pay."""
    return make_payer()


def spend(owner: Caller, cents: int) -> None:
    with platform_scope("tests"):
        charge_usage(
            tenant=tenant_of(owner),
            amount=cents * CENT,
            posting_id=str(ids.uuid7()),
            currency="USD",
        )


def turn_on(owner: Caller, *, cap: int = 3 * TEN) -> None:
    set_plan(
        tenant=tenant_of(owner),
        is_on=True,
        threshold=200 * CENT,
        amount=TEN * CENT,
        monthly_cap=cap * CENT,
        warn_days=3,
        caller=owner,
    )


def reloads(owner: Caller) -> list[Payment]:
    with platform_scope("tests"):
        rows = Payment.objects.filter(tenant_id=tenant_of(owner), kind="auto_reload")
        return list(rows.order_by("pk"))


def letters(kind: str) -> int:
    with platform_scope("tests"):
        return Mail.objects.filter(kind=kind).count()


def deliver(server: StripeServer, payment: Payment) -> None:
    send(event("payment_intent.succeeded", server.objects[payment.payment_ref]))


def test_a_low_balance_is_reloaded_once_and_credited_by_webhook(
    server: StripeServer, owner: Caller
) -> None:
    paid(server, owner)
    turn_on(owner)
    assert run_auto_reloads(at=clock.utc_now()) == 0
    spend(owner, 900)

    assert run_auto_reloads(at=clock.utc_now()) == 1
    assert run_auto_reloads(at=clock.utc_now()) == 0, "one is under way"
    assert balances()["prepaid"] == 100
    deliver(server, reloads(owner)[0])
    deliver(server, reloads(owner)[0])

    assert balances()["prepaid"] == 100 + TEN
    assert [row.status for row in reloads(owner)] == ["paid"]
    assert broken_invariants() == []


def test_the_monthly_cap_holds_and_is_told_once(server: StripeServer, owner: Caller) -> None:
    paid(server, owner)
    turn_on(owner, cap=2 * TEN)
    now = clock.utc_now()
    spend(owner, TEN)
    for _ in range(2):
        assert run_auto_reloads(at=now) == 1
        deliver(server, reloads(owner)[-1])
        spend(owner, TEN)

    assert run_auto_reloads(at=now) == 0
    assert run_auto_reloads(at=now) == 0
    assert (len(reloads(owner)), letters("auto_reload_cap")) == (2, 1)
    assert run_auto_reloads(at=now + timedelta(days=32)) == 1


def test_three_refusals_turn_it_off_with_a_letter(server: StripeServer, owner: Caller) -> None:
    paid(server, owner)
    turn_on(owner)
    spend(owner, TEN)
    server.is_declining = True

    for count in (1, 2, 3):
        assert run_auto_reloads(at=clock.utc_now()) == 0
        last = reloads(owner)[-1]
        intent = next(
            row
            for row in server.objects.values()
            if (row.get("metadata") or {}).get("turnpike_payment") == last.public_id
        )
        # The webhook says what the answer said: it is one failure.
        send(event("payment_intent.payment_failed", intent))
        assert plan_of_(owner).failures == count

    assert not plan_of_(owner).is_on
    assert letters("auto_reload_off") == 1
    assert run_auto_reloads(at=clock.utc_now()) == 0
    assert [row.failure for row in reloads(owner)] == ["Your card was declined."] * 3


def plan_of_(owner: Caller) -> CreditPlan:
    with platform_scope("tests"):
        return plan_of(tenant_of(owner))


def test_a_charge_that_nobody_heard_of_is_made_once(server: StripeServer, owner: Caller) -> None:
    paid(server, owner)
    turn_on(owner)
    spend(owner, TEN)
    server.is_down = True
    assert run_auto_reloads(at=clock.utc_now()) == 0
    server.is_down = False

    assert run_auto_reloads(at=clock.utc_now()) == 1
    assert len(reloads(owner)) == 1
    assert plan_of_(owner).failures == 0


def test_a_dispute_turns_it_off(server: StripeServer, owner: Caller) -> None:
    _payment, intent = paid(server, owner)
    turn_on(owner)

    send(event("charge.dispute.funds_withdrawn", server.dispute(intent["id"], TEN)))

    assert not plan_of_(owner).is_on
    assert letters("auto_reload_off") == 1


@pytest.mark.parametrize(
    "change",
    [{"threshold": 0}, {"amount": CENT}, {"monthly_cap": 500 * CENT}, {"warn_days": 91}],
    ids=lambda change: next(iter(change)),
)
def test_a_plan_that_cannot_work_is_refused(
    server: StripeServer, owner: Caller, change: dict[str, int]
) -> None:
    paid(server, owner)
    good: dict[str, Any] = {
        "threshold": CENT,
        "amount": TEN * CENT,
        "monthly_cap": TEN * CENT,
        "warn_days": 3,
    }
    with pytest.raises(InvalidInput):
        set_plan(tenant=tenant_of(owner), is_on=True, caller=owner, **{**good, **change})
    assert not plan_of_(owner).is_on


def test_without_a_card_there_is_no_auto_reload(owner: Caller) -> None:
    with pytest.raises(InvalidInput, match="card"):
        turn_on(owner)


def use_up(owner: Caller, *, left: int) -> None:
    """A week's spending, and so much credit."""
    tenant = tenant_of(owner)
    grant_credit(
        tenant=tenant, amount=left * CENT, idempotency_key=f"a{tenant}", reason="x", actor="tests"
    )
    with platform_scope("tests"):
        SpendCounter.objects.create(
            tenant_id=tenant,
            scope="t",
            period=f"{clock.utc_now():%Y-%m-%d}",
            spent_nano=700 * CENT,
        )


def test_who_was_told_keeps_nobody_else_waiting(
    owner: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(low_balance, "AT_ONCE_MAX", 1)
    use_up(owner, left=1)
    use_up(make_payer(), left=250)

    assert [warn_low_balances(at=clock.utc_now()) for _ in range(3)] == [1, 1, 0]


def test_a_balance_that_ends_soon_is_told_once(owner: Caller) -> None:
    now = clock.utc_now()
    use_up(owner, left=250)

    assert warn_low_balances(at=now) == 1
    assert warn_low_balances(at=now) == 0
    assert letters("notice.balance") == 1
    assert warn_low_balances(at=now + timedelta(days=30)) == 0, "nothing was used lately"


def code(**changes: Any) -> tuple[RedemptionCode, str]:
    key = changes.pop("key", "") or str(ids.uuid7())
    terms = CodeTerms(**{"amount": 500 * CENT, **changes})
    made = create_code(terms=terms, key=key, reason="a conference", caller=OPERATOR)
    return made.row, made.words


def redeem(owner: Caller, words: str, **changes: Any) -> CreditGrant:
    given: dict[str, Any] = {"tenant": tenant_of(owner), "at": clock.utc_now(), **changes}
    return redeem_code(words=words, caller=owner, **given)


def test_a_code_becomes_credit_once(owner: Caller) -> None:
    row, words = code(uses_max=2, credit_days=30)
    assert words not in str(list(RedemptionCode.objects.values()))
    assert row.hint == words[-5:]

    grant = redeem(owner, f" {words.lower().replace('-', ' ')} ")

    assert balances() == {"promo": 500, "promo_expense": 500}
    assert grant.expires_at is not None
    with pytest.raises(Conflict):
        redeem(owner, words)
    redeem(make_payer(), words)
    with pytest.raises(NotFound):
        redeem(make_payer(), words)
    assert broken_invariants() == []


def test_codes_that_are_over_are_like_wrong_ones(owner: Caller) -> None:
    now = clock.utc_now()
    withdrawn, words = code()
    withdraw_code(code=withdrawn, reason="leaked", caller=OPERATOR, at=now)
    _row, ended = code(ends_at=now)
    said = set()
    for typed in (words, ended, "22222-33333-44444-55555", ""):
        with pytest.raises(NotFound) as refused:
            redeem(owner, typed, at=now)
        said.add(refused.value.message)
    assert len(said) == 1


def test_guessing_is_bounded(owner: Caller) -> None:
    _row, words = code()
    for _ in range(10):
        with pytest.raises(NotFound):
            redeem(owner, "guess")
    with pytest.raises(LimitReached):
        redeem(owner, words)


def test_the_same_key_makes_one_code(db: None) -> None:
    row, words = code(key="one")
    again, nothing = code(key="one")

    assert (row.pk, nothing) == (again.pk, "")
    assert words
    with pytest.raises(InvalidInput):
        code(amount=0)
    with pytest.raises(InvalidInput):
        code(uses_max=0)


@pytest.mark.django_db(transaction=True)
def test_twenty_at_once_redeem_as_often_as_the_code_says() -> None:
    owners = [make_payer() for _ in range(5)]
    _row, words = code(uses_max=2)

    def work(owner: Caller) -> str:
        try:
            redeem(owner, words)
        except (NotFound, Conflict) as error:
            return error.code
        return "credit"

    outcomes = at_once(work, owners * 4)

    assert outcomes.count("credit") == 2
    assert len(outcomes) == 20
    assert balances() == {"promo": 1_000, "promo_expense": 1_000}
    assert broken_invariants() == []
