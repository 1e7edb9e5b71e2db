"""Posting: balanced, once, append-only, whatever is tried against the tables."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.models.ledger import LedgerAccount, LedgerEntry, LedgerTxn, Wallet
from billing.services.ledger import Line, account_for, credit, debit, post, reverse
from tests.billing.ledger_world import (
    ACTOR,
    broken_invariants,
    make_account,
    make_tenant,
    move,
    run_sql,
    state,
)
from tests.support.threads import at_once
from turnpike.control.scope import platform_scope, tenant_scope
from turnpike.kernel.errors import Conflict, InvalidInput

pytestmark = pytest.mark.django_db

INSERT_TXN = (
    "INSERT INTO billing_ledger_txn (idem_key, kind, currency, fingerprint, actor, memo)"
    " VALUES (%s, 'correction', 'USD', '', 'tests', '{}')"
)
INSERT_ENTRY = (
    "INSERT INTO billing_ledger_entry"
    " (txn_id, line, account_id, side, amount, account_version, balance_after)"
    " VALUES ((SELECT id FROM billing_ledger_txn WHERE idem_key = %s), %s, %s, %s, %s, 0, 0)"
)


@pytest.fixture
def accounts() -> Iterator[tuple[int, int]]:
    """Two accounts of the platform, and one posting between them."""
    cash, fees = make_account(None, "cash", "test"), make_account(None, "fees")
    move(source=cash, target=fees, amount=5, key="first")
    yield cash, fees
    assert broken_invariants() == []


def test_post_moves_money_and_numbers_its_entries(accounts: tuple[int, int]) -> None:
    cash, fees = accounts

    posted = move(source=cash, target=fees, amount=7)

    assert posted is not None
    with platform_scope("tests"):
        entries = LedgerEntry.objects.filter(txn=posted.txn).order_by("line")
        rows = [(e.account_id, e.side, e.amount, e.account_version) for e in entries]
        balances = [e.balance_after for e in entries]
    assert rows == [(cash, 1, 7, 2), (fees, -1, 7, 2)]
    assert balances == [12, -12]


def test_post_again_with_the_same_content_posts_nothing(accounts: tuple[int, int]) -> None:
    cash, fees = accounts
    before = state()

    assert move(source=cash, target=fees, amount=5, key="first") is None

    assert state() == before


@pytest.mark.parametrize("amount", [4, 6])
def test_post_again_with_other_content_is_a_conflict(
    accounts: tuple[int, int], amount: int
) -> None:
    cash, fees = accounts
    before = state()

    with pytest.raises(Conflict, match="'first' was posted before with other content"):
        move(source=cash, target=fees, amount=amount, key="first")

    assert state() == before


def test_the_order_of_lines_is_not_content(accounts: tuple[int, int]) -> None:
    cash, fees = accounts

    with platform_scope("tests"):
        again = post(
            key="first",
            kind="correction",
            currency="USD",
            lines=[credit(fees, 5), debit(cash, 5)],
            actor=ACTOR,
        )

    assert again is None


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ([(1, 5)], "has 2 to 1000 lines"),
        ([(1, 5), (-1, 4)], "debits of a posting equal its credits"),
        ([(1, 0), (-1, 0)], "above zero"),
        ([(1, -5), (-1, -5)], "above zero"),
    ],
)
def test_post_refuses_what_cannot_balance(
    accounts: tuple[int, int], sides: list[tuple[int, int]], message: str
) -> None:
    before = state()
    lines = [
        Line(account=account, side=side, amount=amount)
        for account, (side, amount) in zip(accounts, sides, strict=False)
    ]

    with pytest.raises(InvalidInput, match=message), platform_scope("tests"):
        post(key="bad", kind="correction", currency="USD", lines=lines, actor=ACTOR)

    assert state() == before


def test_an_account_that_does_not_exist_is_refused(accounts: tuple[int, int]) -> None:
    with pytest.raises(InvalidInput, match="no ledger account 999999"):
        move(source=accounts[0], target=999_999, amount=1)


def test_a_reversal_is_the_mirror_and_happens_once(accounts: tuple[int, int]) -> None:
    with platform_scope("tests"):
        txn = LedgerTxn.objects.get(idem_key="first").pk

        assert reverse(txn=txn, actor=ACTOR, reason="a mistake") is not None
        assert reverse(txn=txn, actor=ACTOR, reason="a mistake") is None

        balances = LedgerAccount.objects.filter(pk__in=accounts)
        assert [account.balance_nano for account in balances] == [0, 0]


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([], id="without lines"),
        pytest.param([(1, 0, 1, 5)], id="a single line"),
        pytest.param([(1, 0, 1, 5), (2, 1, -1, 4)], id="unbalanced"),
        pytest.param([(1, 0, 1, 5), (2, 1, 1, 5)], id="one side alone"),
        pytest.param([(1, 0, 1, -5), (2, 1, -1, -5)], id="negative"),
        pytest.param([(1, 0, 2, 5), (2, 1, -2, 5)], id="a side that is none"),
    ],
)
def test_the_database_refuses_a_transaction(
    accounts: tuple[int, int], lines: list[tuple[int, int, int, int]]
) -> None:
    before = state()

    with pytest.raises(IntegrityError), transaction.atomic():
        run_sql(
            (INSERT_TXN, ["bad"]),
            *(
                (INSERT_ENTRY, ["bad", line, accounts[index], side, amount])
                for line, index, side, amount in lines
            ),
        )

    assert state() == before


def test_the_database_refuses_two_currencies(accounts: tuple[int, int]) -> None:
    euros = make_account(None, "fees", currency="EUR")

    with pytest.raises(IntegrityError, match="not balanced"), transaction.atomic():
        run_sql(
            (INSERT_TXN, ["bad"]),
            (INSERT_ENTRY, ["bad", 1, accounts[0], 1, 5]),
            (INSERT_ENTRY, ["bad", 2, euros, -1, 5]),
        )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE billing_ledger_txn SET memo = '{\"a\": 1}'",
        "DELETE FROM billing_ledger_txn",
        "TRUNCATE billing_ledger_txn CASCADE",
        "UPDATE billing_ledger_entry SET amount = amount + 1",
        "UPDATE billing_ledger_entry SET line = line + 10",
        "DELETE FROM billing_ledger_entry",
        "TRUNCATE billing_ledger_entry",
        "UPDATE billing_ledger_account SET debits = debits + 1",
        "UPDATE billing_ledger_account SET version = version + 1",
        "UPDATE billing_ledger_account SET normal = -normal",
        "UPDATE billing_ledger_account SET currency = 'EUR'",
        "INSERT INTO billing_ledger_account"
        " (kind, ref, currency, normal, debits, credits, pending, version)"
        " VALUES ('fees', 'rich', 'USD', 1, 7, 0, 0, 0)",
    ],
)
def test_the_database_refuses_every_change_of_what_was_posted(
    accounts: tuple[int, int], statement: str
) -> None:
    before = state()

    with pytest.raises(DatabaseError), transaction.atomic():
        run_sql((statement, []))

    assert state() == before


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_balanced", [False, True])
def test_no_line_slips_into_an_older_transaction(
    accounts: tuple[int, int], is_balanced: bool
) -> None:
    before = state()
    late = [(INSERT_ENTRY, ["first", 3, accounts[0], 1, 9])]
    if is_balanced:
        late.append((INSERT_ENTRY, ["first", 4, accounts[1], -1, 9]))

    with pytest.raises(IntegrityError, match="is not of this transaction"):
        run_sql(*late)

    assert state() == before


@pytest.mark.django_db(transaction=True)
def test_balance_is_checked_at_the_commit_itself(accounts: tuple[int, int]) -> None:
    before = state()

    def post_one_line() -> None:
        with platform_scope("tests"), connection.cursor() as cursor:
            cursor.execute(INSERT_TXN, ["bad"])
            cursor.execute(INSERT_ENTRY, ["bad", 1, accounts[0], 1, 5])

    with pytest.raises(IntegrityError, match="not balanced"):
        post_one_line()

    assert state() == before


@pytest.mark.django_db(transaction=True)
def test_a_posting_inside_a_savepoint_is_of_this_transaction(accounts: tuple[int, int]) -> None:
    cash, fees = accounts

    with transaction.atomic(), transaction.atomic():
        posted = move(source=cash, target=fees, amount=3)

    assert posted is not None


@pytest.mark.django_db(transaction=True)
def test_writers_in_opposite_order_neither_deadlock_nor_lose_a_posting() -> None:
    tenants = [make_tenant(f"tenant {number}") for number in range(2)]
    pairs = [
        (make_account(tenants[0], "prepaid"), make_account(tenants[1], "prepaid")),
        (make_account(tenants[0], "revenue"), make_account(tenants[1], "revenue")),
    ]
    lines = [debit(account, 1) for account in pairs[0]] + [credit(a, 1) for a in pairs[1]]

    def write(writer: int) -> None:
        for number in range(100):
            with platform_scope("tests"):
                post(
                    key=f"{writer}:{number}",
                    kind="usage",
                    currency="USD",
                    lines=lines if writer % 2 else lines[::-1],
                    actor=ACTOR,
                )

    at_once(write, range(8))

    assert broken_invariants() == []
    with platform_scope("tests"):
        versions = LedgerAccount.objects.filter(version__gt=0).values_list("version", flat=True)
        assert list(versions) == [800] * 4
        balances = Wallet.objects.order_by("tenant").values_list("balance_nano", "version")
        assert list(balances) == [(-800, 801)] * 2


@pytest.mark.django_db(transaction=True)
def test_one_key_posted_by_many_at_once_is_posted_once(accounts: tuple[int, int]) -> None:
    cash, fees = accounts

    def write(_writer: int) -> Any:
        return move(source=cash, target=fees, amount=11, key="same")

    results = at_once(write, range(8))

    assert sum(result is not None for result in results) == 1
    assert len(results) == 8


def test_a_tenant_sees_its_own_ledger_alone() -> None:
    alice, mallory = make_tenant("alice"), make_tenant("mallory")
    cash = make_account(None, "cash", "test")
    for tenant in (alice, mallory):
        move(source=cash, target=make_account(tenant, "prepaid"), amount=5)

    with tenant_scope(mallory):
        seen = [
            set(model.objects.values_list("tenant_id", flat=True))
            for model in (LedgerAccount, LedgerTxn, LedgerEntry, Wallet)
        ]

    assert seen == [{mallory}] * 4


def test_a_tenant_reaches_neither_other_wallets_nor_the_accounts_of_the_platform() -> None:
    alice = make_tenant("alice")
    prepaid, revenue = make_account(alice, "prepaid"), make_account(alice, "revenue")
    move(source=revenue, target=prepaid, amount=5)
    before = state()

    with tenant_scope(alice):
        foreign = Wallet.objects.exclude(tenant_id=alice).update(balance_nano=10**12)
    with pytest.raises(DatabaseError, match="row-level security"), tenant_scope(alice):
        account_for(tenant=None, kind="cash", ref="forged", currency="USD")

    assert foreign == 0
    assert state() == before


KINDS = ("prepaid", "unbilled", "receivable", "revenue", "cash", "fees")
POSTS = st.lists(
    st.tuples(
        st.lists(
            st.tuples(st.sampled_from(KINDS), st.integers(0, 1), st.integers(1, 2**40)),
            min_size=1,
            max_size=4,
        ),
        st.tuples(st.sampled_from(KINDS), st.integers(0, 1)),
        st.booleans(),
        st.integers(0, 5),
    ),
    max_size=12,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(posts=POSTS)
def test_random_posts_keep_the_invariants(posts: list[Any]) -> None:
    with transaction.atomic():
        tenants = [make_tenant("a"), make_tenant("b")]
        used: dict[int, object] = {}
        for parts, balance, is_debit, key in posts:
            first, other = (debit, credit) if is_debit else (credit, debit)
            lines = [first(make_account(tenants[t], kind), amount) for kind, t, amount in parts]
            total = sum(line.amount for line in lines)
            lines.append(other(make_account(tenants[balance[1]], balance[0]), total))
            content = sorted((line.account, line.side, line.amount) for line in lines)
            with platform_scope("tests"):
                try:
                    posted = post(
                        key=f"key {key}",
                        kind="correction",
                        currency="USD",
                        lines=lines,
                        actor=ACTOR,
                    )
                except Conflict:
                    assert used[key] != content
                else:
                    assert (posted is None) == (key in used)
                    assert used.setdefault(key, content) == content
        run_sql()
        assert broken_invariants() == []
        transaction.set_rollback(True)
