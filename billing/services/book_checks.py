"""The rows of reconciliation that PostgreSQL answers alone.

Each is a query that finds nothing when all is well. The first columns of a row say what it is
about, the others how it differs.
"""

from collections.abc import Mapping

from billing.services.invoice_checks import INVOICE_CHECKS

POSTGRES_CHECKS: Mapping[str, str] = {
    "events_and_ledger": """
WITH used AS (
  SELECT 'usage:' || posting_id || ':' || tenant_id AS idem_key, sum(amount_nano) AS nano
  FROM (
    SELECT posting_id, tenant_id, amount_nano FROM billing_usage_event
    UNION ALL SELECT posting_id, tenant_id, amount_nano FROM billing_forgotten_posting
  ) AS all_postings GROUP BY posting_id, tenant_id HAVING sum(amount_nano) <> 0
), booked AS (
  SELECT txn.idem_key, sum(-entry.side * entry.amount) AS nano
  FROM billing_ledger_txn AS txn JOIN billing_ledger_entry AS entry ON entry.txn_id = txn.id
  JOIN billing_ledger_account AS account ON account.id = entry.account_id
  WHERE txn.kind = 'usage' AND account.kind = 'revenue' GROUP BY txn.idem_key
)
SELECT idem_key, used.nano AS events_nano, booked.nano AS ledger_nano
FROM used FULL JOIN booked USING (idem_key)
WHERE used.nano IS DISTINCT FROM booked.nano""",
    "events_in_order": """
SELECT request_id, count(*) AS revisions, sum(amount_nano) AS charged_nano
FROM billing_usage_event GROUP BY request_id
HAVING max(revision) <> count(*) - 1 OR count(DISTINCT rank) <> count(*)
  OR sum(amount_nano) < 0 OR count(DISTINCT tenant_id) <> 1
  OR sum(amount_nano) > (array_agg(hold_micro ORDER BY revision DESC))[1]::numeric * 1000""",
    "entries_and_accounts": """
WITH replayed AS (
  SELECT account_id, count(*) AS entries,
    sum(amount) FILTER (WHERE side = 1) AS debits, sum(amount) FILTER (WHERE side = -1) AS credits
  FROM billing_ledger_entry GROUP BY account_id
)
SELECT account.id AS account_id, account.debits, replayed.debits AS replayed_debits,
  account.credits, replayed.credits AS replayed_credits, account.version, replayed.entries
FROM billing_ledger_account AS account LEFT JOIN replayed ON replayed.account_id = account.id
WHERE account.debits <> coalesce(replayed.debits, 0)
  OR account.credits <> coalesce(replayed.credits, 0)
  OR account.version <> coalesce(replayed.entries, 0)""",
    "running_balances": """
SELECT txn_id, line, balance_after, replayed FROM (
  SELECT entry.txn_id, entry.line, entry.balance_after, entry.account_version,
    account.normal * sum(entry.side * entry.amount) OVER history AS replayed,
    row_number() OVER history AS place
  FROM billing_ledger_entry AS entry JOIN billing_ledger_account AS account
    ON account.id = entry.account_id
  WINDOW history AS (PARTITION BY entry.account_id ORDER BY entry.account_version)
) AS replay WHERE balance_after <> replayed OR account_version <> place""",
    "zero_sum": """
SELECT currency, sum(debits) - sum(credits) AS difference_nano FROM billing_ledger_account
GROUP BY currency HAVING sum(debits) <> sum(credits)""",
    "wallets_and_accounts": """
SELECT wallet.tenant_id, wallet.balance_nano,
  coalesce(sum(account.credits - account.debits), 0) AS accounts_nano
FROM billing_wallet AS wallet LEFT JOIN billing_ledger_account AS account
  ON account.tenant_id = wallet.tenant_id AND account.kind = ANY(%(wallet_kinds)s)
GROUP BY wallet.tenant_id, wallet.balance_nano
HAVING wallet.balance_nano <> coalesce(sum(account.credits - account.debits), 0)""",
    "holds_and_accounts": """
WITH held AS (
  SELECT account_id, sum(remaining_nano) AS nano FROM billing_ledger_hold
  WHERE state = 'pending' GROUP BY account_id
)
SELECT account.id AS account_id, account.pending AS pending_nano,
  coalesce(held.nano, 0) AS held_nano FROM billing_ledger_account AS account
LEFT JOIN held ON held.account_id = account.id WHERE account.pending <> coalesce(held.nano, 0)""",
    "holds_and_batches": """
WITH open AS (
  SELECT batch_id, sum(hold_micro) FILTER (WHERE state = 'waiting') * 1000 AS waiting
  FROM billing_batch_item GROUP BY batch_id
), charged AS (
  SELECT item.batch_id, sum(event.amount_nano) AS nano FROM billing_batch_item AS item
  JOIN billing_usage_event AS event
    ON event.request_id = item.request_id AND event.revision = 0
  GROUP BY item.batch_id
)
SELECT batch.id AS batch_id, hold.state AS hold, hold.remaining_nano, open.waiting AS waiting_nano,
  hold.posted_nano, charged.nano AS charged_nano
FROM billing_message_batch AS batch JOIN open ON open.batch_id = batch.id
LEFT JOIN billing_ledger_hold AS hold ON hold.id = batch.id
LEFT JOIN charged ON charged.batch_id = batch.id
WHERE hold.id IS NULL OR (hold.state = 'pending') <> (batch.state <> 'ended')
  OR (hold.state = 'pending' AND hold.remaining_nano <> coalesce(open.waiting, 0))
  OR hold.posted_nano <> coalesce(charged.nano, 0)""",
    "stray_rows": """
SELECT 'billing_usage_event_default' AS table_name, request_id FROM billing_usage_event_default
UNION ALL
SELECT 'billing_upstream_attempt_default', request_id FROM billing_upstream_attempt_default""",
    **INVOICE_CHECKS,
}
# How many columns name the cause where it is more than the first one.
CAUSE_COLUMNS: Mapping[str, int] = {
    "running_balances": 2,
    "stray_rows": 2,
    "invoices_and_ledger": 2,
    "receivable": 2,
    "unbilled": 2,
}
