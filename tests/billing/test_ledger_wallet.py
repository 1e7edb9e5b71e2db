"""Grants, top-ups, charges: what they do to a tenant's spendable money, once each."""

from datetime import datetime, timedelta
from typing import Any

import pytest
import redis

from accounts.models import AuditEvent, Tenant
from billing.models.ledger import CreditGrant, LedgerEntry, Wallet
from billing.services.periods import period_for
from billing.services.wallet import (
    WalletState,
    charge_usage,
    expire_grants,
    grant_credit,
    set_credit_line,
    set_mode,
    top_up,
)
from tests.billing.ledger_world import ACTOR, broken_invariants, make_tenant, state
from tests.support.threads import at_once
from turnpike.control.scope import platform_scope, tenant_scope
from turnpike.kernel import clock, ids, keyspace
from turnpike.kernel.errors import Conflict, InvalidInput

pytestmark = pytest.mark.django_db


def grant(tenant: int, amount: int, *, key: str = "", **options: Any) -> CreditGrant:
    """A grant with boring words."""
    key = key or str(ids.uuid7())
    return grant_credit(
        tenant=tenant, amount=amount, idempotency_key=key, reason="hello", actor=ACTOR, **options
    )


def pay(tenant: int, amount: int, *, key: str = "") -> WalletState:
    """A top-up with boring words."""
    key = key or str(ids.uuid7())
    return top_up(tenant=tenant, amount=amount, idempotency_key=key, actor=ACTOR)


def charge(tenant: int, amount: int, *, posting: str = "") -> WalletState:
    """Charge usage as the ingest does."""
    with platform_scope("tests"):
        return charge_usage(
            tenant=tenant,
            amount=amount,
            posting_id=posting or str(ids.uuid7()),
            currency="USD",
        )


def lines_of_last_posting() -> list[tuple[str, int, int]]:
    """Kind, side and amount of the newest transaction's entries."""
    with platform_scope("tests"):
        last = LedgerEntry.objects.order_by("-txn_id").values_list("txn_id", flat=True).first()
        rows = LedgerEntry.objects.filter(txn_id=last).select_related("account").order_by("line")
        return [(row.account.kind, row.side, row.amount) for row in rows]


def test_a_grant_is_spendable_once_for_its_key() -> None:
    tenant = make_tenant()

    first = grant(tenant, 7, key="welcome")
    before = state()
    again = grant(tenant, 7, key="welcome")

    assert again == first
    assert state() == before
    with platform_scope("tests"):
        assert Wallet.objects.get(tenant_id=tenant).balance_nano == 7
        assert AuditEvent.objects.filter(tenant_id=tenant, action="credit.granted").count() == 1
    assert broken_invariants() == []


def test_a_grant_with_the_same_key_and_another_amount_is_a_conflict() -> None:
    tenant = make_tenant()
    grant(tenant, 7, key="welcome")
    before = state()

    with pytest.raises(Conflict, match="'welcome' was used before"):
        grant(tenant, 8, key="welcome")

    assert state() == before


def test_a_top_up_is_booked_once() -> None:
    tenant = make_tenant()

    assert pay(tenant, 9, key="pi_1") == pay(tenant, 9, key="pi_1")

    assert lines_of_last_posting() == [("cash", 1, 9), ("prepaid", -1, 9)]
    with pytest.raises(Conflict):
        pay(tenant, 10, key="pi_1")


@pytest.mark.parametrize("amount", [0, -1])
def test_credit_is_above_zero(amount: int) -> None:
    tenant = make_tenant()

    with pytest.raises(InvalidInput):
        grant(tenant, amount)
    with pytest.raises(InvalidInput):
        pay(tenant, amount)


def test_charges_burn_promotions_by_earliest_expiry_and_then_what_was_paid() -> None:
    tenant = make_tenant()
    soon, later = clock.utc_now() + timedelta(days=1), clock.utc_now() + timedelta(days=9)
    pay(tenant, 100)
    grant(tenant, 10)
    grant(tenant, 20, expires_at=later)
    grant(tenant, 30, expires_at=soon)

    after = charge(tenant, 65)

    assert lines_of_last_posting() == [
        ("promo", 1, 30),
        ("promo", 1, 20),
        ("promo", 1, 10),
        ("prepaid", 1, 5),
        ("revenue", -1, 65),
    ]
    assert (after.balance_nano, after.credit_limit_nano) == (95, 0)
    assert broken_invariants() == []


def test_settlement_always_succeeds_even_below_zero() -> None:
    tenant = make_tenant()
    grant(tenant, 3)

    assert charge(tenant, 10).balance_nano == -7

    assert lines_of_last_posting() == [("promo", 1, 3), ("prepaid", 1, 7), ("revenue", -1, 10)]


def test_ended_promotions_are_not_burnt() -> None:
    tenant = make_tenant()
    grant(tenant, 50, expires_at=clock.utc_now() - timedelta(seconds=1))

    charge(tenant, 5)

    assert lines_of_last_posting() == [("prepaid", 1, 5), ("revenue", -1, 5)]


def test_a_revision_downwards_gives_back_in_the_reverse_order() -> None:
    tenant = make_tenant()
    pay(tenant, 100)
    grant(tenant, 30)
    charge(tenant, 40)

    after = charge(tenant, -25)

    assert lines_of_last_posting() == [("promo", -1, 15), ("prepaid", -1, 10), ("revenue", 1, 25)]
    assert after.balance_nano == 115
    assert broken_invariants() == []


def test_what_was_burnt_from_ended_credit_comes_back_as_paid_credit() -> None:
    tenant = make_tenant()
    soon = clock.utc_now() + timedelta(days=1)
    grant(tenant, 30, expires_at=soon)
    charge(tenant, 30)
    expire_grants(at=soon + timedelta(seconds=1))
    with platform_scope("tests"):
        CreditGrant.objects.update(expires_at=clock.utc_now() - timedelta(days=1))

    charge(tenant, -12)

    assert lines_of_last_posting() == [("prepaid", -1, 12), ("revenue", 1, 12)]


def test_a_postpaid_tenant_owes_what_it_used() -> None:
    tenant = make_tenant()
    grant(tenant, 50)
    set_mode(tenant=tenant, mode="postpaid", actor=ACTOR)

    charge(tenant, 20)
    after = charge(tenant, -5)

    assert lines_of_last_posting() == [("unbilled", -1, 5), ("revenue", 1, 5)]
    assert after.balance_nano == 35
    assert broken_invariants() == []


def test_a_posting_is_charged_once_even_if_the_burn_order_has_changed() -> None:
    tenant = make_tenant()
    pay(tenant, 100)
    first = charge(tenant, 20, posting="posting")
    grant(tenant, 50)

    again = charge(tenant, 20, posting="posting")

    assert again.balance_nano == first.balance_nano + 50
    with pytest.raises(Conflict, match="other content"):
        charge(tenant, 21, posting="posting")


def test_nothing_to_charge_posts_nothing() -> None:
    tenant = make_tenant()
    pay(tenant, 1)
    before = state()

    assert charge(tenant, 0).balance_nano == 1

    assert state() == before


def test_a_charge_in_another_currency_is_a_conflict() -> None:
    tenant = make_tenant()
    pay(tenant, 1)

    with pytest.raises(Conflict, match="kept in USD, the usage in EUR"), platform_scope("tests"):
        charge_usage(tenant=tenant, amount=1, posting_id="x", currency="EUR")


def test_grants_expire_once_with_what_is_left_of_them() -> None:
    tenant = make_tenant()
    ends_at = clock.utc_now() + timedelta(days=1)
    grant(tenant, 30, expires_at=ends_at)
    grant(tenant, 5)
    charge(tenant, 10)

    counts = [expire_grants(at=ends_at - timedelta(seconds=1))]
    counts += [expire_grants(at=ends_at), expire_grants(at=ends_at)]

    assert counts == [0, 1, 0]
    assert lines_of_last_posting() == [("promo", 1, 20), ("breakage", -1, 20)]
    with platform_scope("tests"):
        assert Wallet.objects.get(tenant_id=tenant).balance_nano == 5
    assert broken_invariants() == []


def test_every_posting_raises_the_version_of_the_wallet() -> None:
    tenant = make_tenant()

    versions = [pay(tenant, 9).version, charge(tenant, 1).version, charge(tenant, -1).version]
    versions.append(set_credit_line(tenant=tenant, limit=5, actor=ACTOR).version)

    assert versions == [2, 3, 4, 5]


def test_a_credit_line_below_zero_is_refused() -> None:
    with pytest.raises(InvalidInput, match="not below zero: -1"):
        set_credit_line(tenant=make_tenant(), limit=-1, actor=ACTOR)


def test_a_mode_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidInput, match="No such mode: 'barter'"):
        set_mode(tenant=make_tenant(), mode="barter", actor=ACTOR)


@pytest.mark.django_db(transaction=True)
def test_money_is_published_after_the_commit(redis_client: "redis.Redis") -> None:
    tenant = make_tenant()

    grant(tenant, 2_000_999)
    pay(tenant, 1_000_000)
    set_credit_line(tenant=tenant, limit=5_000_000, actor=ACTOR)

    wallet = redis_client.hgetall(keyspace.wallet(tenant))
    assert wallet[b"posted"] == b"3000"  # micros, rounded down
    assert wallet[b"limit"] == b"5000"
    assert wallet[b"ver"] == b"4"
    with platform_scope("tests"):
        version = Tenant.objects.get(pk=tenant).policy_version
    policy = redis_client.hgetall(keyspace.policy(keyspace.shard_of(tenant)))
    assert policy[str(tenant).encode()] == str(version).encode()


@pytest.mark.django_db(transaction=True)
def test_parallel_charges_and_top_ups_lose_nothing(redis_client: "redis.Redis") -> None:
    tenant = make_tenant()
    grant(tenant, 50)

    def work(worker: int) -> None:
        for number in range(10):
            charge(tenant, 3, posting=f"{worker}:{number}")
            pay(tenant, 2, key=f"{worker}:{number}")

    at_once(work, range(6))

    assert broken_invariants() == []
    with platform_scope("tests"):
        wallet = Wallet.objects.get(tenant_id=tenant)
    assert (wallet.balance_nano, wallet.version) == (50 - 60, 122)
    assert redis_client.hget(keyspace.wallet(tenant), "ver") == b"122"


def test_periods_are_utc_months_made_on_demand() -> None:
    tenant = make_tenant()
    at = datetime.fromisoformat("2026-12-31T23:30:00-01:00")

    with platform_scope("tests"):
        period = period_for(tenant, at)
        again = period_for(tenant, at + timedelta(days=30))

    assert period == again
    assert period.starts_at == datetime.fromisoformat("2027-01-01T00:00:00+00:00")
    assert period.ends_at == datetime.fromisoformat("2027-02-01T00:00:00+00:00")


def test_usage_of_a_closed_period_goes_to_the_oldest_open_one() -> None:
    tenant = make_tenant()
    at = datetime.fromisoformat("2026-11-21T10:00:00+00:00")
    with platform_scope("tests"):
        november = period_for(tenant, at)
        november.state = "closed"
        november.save()

        later = period_for(tenant, at)

    assert later.starts_at == november.ends_at


def test_a_closed_period_never_opens_again() -> None:
    tenant = make_tenant()
    with platform_scope("tests"):
        period = period_for(tenant, clock.utc_now())
        period.state = "closed"
        period.save()
    period.state = "open"

    with pytest.raises(Exception, match="is closed"), platform_scope("tests"):
        period.save()


def test_a_tenant_sees_its_own_grants_and_periods_alone() -> None:
    alice, mallory = make_tenant("alice"), make_tenant("mallory")
    for tenant in (alice, mallory):
        grant(tenant, 1)
        with platform_scope("tests"):
            period_for(tenant, clock.utc_now())

    with tenant_scope(mallory):
        owners = set(CreditGrant.objects.values_list("tenant_id", flat=True))
        owners |= set(Tenant.objects.get().billing_periods.values_list("tenant_id", flat=True))

    assert owners == {mallory}
