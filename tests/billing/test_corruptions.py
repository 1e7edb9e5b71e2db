"""Corruptions that only the tables' owner can make: the proof finds each and names it."""

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import pytest
import redis
from django.db import connection

from billing.services.reconciliation import reconcile
from tests.billing.usage_world import Shop, append, ingest, make_event, make_shop
from turnpike.control.scope import platform_scope

pytestmark = pytest.mark.django_db


@pytest.fixture
def shop(redis_client: redis.Redis) -> Shop:
    return make_shop(credit=1_000_000_000)


@pytest.fixture
def requests(shop: Shop, redis_client: redis.Redis) -> list[UUID]:
    found = []
    for _ in range(3):
        event = make_event(shop)
        append(redis_client, event)
        ingest(redis_client)
        found.append(UUID(event.rid))
    assert [finding for finding in reconcile() if finding.differences] == []
    return found


def as_owner(table: str, statement: str, values: Sequence[Any] = ()) -> None:
    """Change what triggers guard: they are switched off around the statement."""
    with platform_scope("tests"), connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        cursor.execute(statement, list(values))
        assert cursor.rowcount == 1
        cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")


def delete_an_event(request: UUID) -> None:
    as_owner(
        "billing_usage_event", "DELETE FROM billing_usage_event WHERE request_id = %s", [request]
    )


def change_an_event(request: UUID) -> None:
    as_owner(
        "billing_usage_event",
        "UPDATE billing_usage_event SET amount_nano = amount_nano + 1, input_nano = input_nano + 1"
        " WHERE request_id = %s",
        [request],
    )


def double_an_entry(_request: UUID) -> None:
    as_owner("billing_ledger_entry", DOUBLED)


def change_a_rollup(_request: UUID) -> None:
    as_owner(
        "billing_usage_rollup", "UPDATE billing_usage_rollup SET output_tokens = output_tokens + 1"
    )


def change_a_wallet(_request: UUID) -> None:
    as_owner("billing_wallet", "UPDATE billing_wallet SET balance_nano = balance_nano + 1")


def change_a_counter(_request: UUID) -> None:
    as_owner(
        "billing_spend_counter",
        "UPDATE billing_spend_counter SET spent_nano = spent_nano + 1"
        " WHERE scope = 't' AND length(period) = 7",
    )


# The last entry of a revenue account once more, as the account's next.
DOUBLED = """
INSERT INTO billing_ledger_entry
  (txn_id, line, account_id, tenant_id, side, amount, balance_after, account_version)
SELECT txn_id,
  (SELECT max(line) + 1 FROM billing_ledger_entry AS same WHERE same.txn_id = e.txn_id),
  account_id, e.tenant_id, side, amount, balance_after + amount, account_version + 1
FROM billing_ledger_entry AS e JOIN billing_ledger_account AS a ON a.id = e.account_id
WHERE a.kind = 'revenue' ORDER BY account_version DESC LIMIT 1
"""


@pytest.mark.parametrize(
    ("corrupt", "named"),
    [
        (delete_an_event, {"events_and_ledger", "rollups", "counters"}),
        (change_an_event, {"events_and_ledger", "rated_again", "rollups", "counters"}),
        (double_an_entry, {"events_and_ledger", "entries_and_accounts"}),
        (change_a_rollup, {"rollups"}),
        (change_a_wallet, {"wallets_and_accounts"}),
        (change_a_counter, {"counters"}),
    ],
)
def test_the_proof_finds_and_names_it(
    corrupt: Callable[[UUID], None], named: set[str], requests: list[UUID]
) -> None:
    corrupt(requests[1])

    found = {finding.check: finding for finding in reconcile() if finding.differences}

    # Redis is compared with PostgreSQL, so it disagrees with a wallet that was changed here.
    assert set(found) - {"redis"} == named
    assert all(finding.examples for finding in found.values())
