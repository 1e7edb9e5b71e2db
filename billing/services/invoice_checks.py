"""Rows of reconciliation that concern invoices: queries that find nothing when all is well."""

from collections.abc import Mapping

from billing.models.usage import CHARGE_COLUMNS

_PARTS = " + ".join(CHARGE_COLUMNS.values())

# A period's lines come to its events and corrections, whichever document it has; drafts included.
_LINES = f"""
WITH used AS (
  SELECT period_id, sum({_PARTS})::numeric AS nano FROM billing_usage_event GROUP BY period_id
), corrected AS (
  SELECT period_id, sum(difference_nano)::numeric AS nano FROM billing_rating_difference
  WHERE period_id IS NOT NULL GROUP BY period_id
), printed AS (
  SELECT invoice.period_id, invoice.id,
    coalesce(sum(line.exact_nano) FILTER (WHERE line.kind = 'usage'), 0) AS usage_nano,
    coalesce(sum(line.exact_nano) FILTER (WHERE line.kind = 'correction'), 0) AS correction_nano
  FROM billing_invoice AS invoice LEFT JOIN billing_invoice_line AS line
    ON line.invoice_id = invoice.id
  WHERE invoice.kind IN ('invoice', 'statement') AND invoice.status <> 'void'
  GROUP BY invoice.id
)
SELECT printed.id AS invoice_id, printed.usage_nano, used.nano AS events_nano,
  printed.correction_nano, corrected.nano AS corrected_nano
FROM printed LEFT JOIN used USING (period_id) LEFT JOIN corrected USING (period_id)
WHERE printed.usage_nano <> coalesce(used.nano, 0)
  OR printed.correction_nano <> coalesce(corrected.nano, 0)"""  # noqa: S608 - our names

# Sums of every document, and the one posting of each that is final.
_SUMS = """
WITH parts AS (
  SELECT invoice.id, coalesce(sum(line.amount_nano), 0) AS net,
    coalesce(sum(line.exact_nano), 0) AS exact
  FROM billing_invoice AS invoice LEFT JOIN billing_invoice_line AS line
    ON line.invoice_id = invoice.id GROUP BY invoice.id
), taxed AS (
  SELECT invoice_id AS id, sum(amount_nano) AS tax FROM billing_invoice_tax GROUP BY invoice_id
)
SELECT invoice.id AS invoice_id, invoice.number, invoice.subtotal_nano, parts.net AS lines_nano,
  invoice.tax_nano, taxed.tax AS taxes_nano
FROM billing_invoice AS invoice JOIN parts USING (id) LEFT JOIN taxed USING (id)
WHERE invoice.subtotal_nano <> parts.net OR invoice.exact_nano <> parts.exact
  OR invoice.tax_nano <> coalesce(taxed.tax, 0)"""

_POSTED = """
WITH asked AS (
  SELECT invoice.id, invoice.uuid, invoice.total_nano AS nano FROM billing_invoice AS invoice
  WHERE invoice.kind = 'invoice' AND invoice.status <> 'draft'
), booked AS (
  SELECT txn.idem_key, sum(entry.side * entry.amount) AS nano
  FROM billing_ledger_txn AS txn JOIN billing_ledger_entry AS entry ON entry.txn_id = txn.id
  JOIN billing_ledger_account AS account ON account.id = entry.account_id
  WHERE txn.kind = 'invoice' AND account.kind = 'receivable' GROUP BY txn.idem_key
)
SELECT asked.id AS invoice_id, booked.idem_key, asked.nano AS asked_nano, booked.nano AS booked_nano
FROM asked FULL JOIN booked ON booked.idem_key = 'invoice:' || asked.uuid
WHERE coalesce(asked.nano, 0) <> coalesce(booked.nano, 0)"""

_NUMBERS = """
SELECT series.id AS series_id, series.name, series.next, count(invoice.id) AS documents,
  min(invoice.sequence) AS first, max(invoice.sequence) AS last
FROM billing_number_series AS series LEFT JOIN billing_invoice AS invoice
  ON invoice.series_id = series.id GROUP BY series.id
HAVING count(invoice.id) <> series.next - 1
  OR coalesce(max(invoice.sequence), 0) <> series.next - 1
  OR count(invoice.id) > 0 AND min(invoice.sequence) <> 1"""

# Clearing: what tenants owe is what their open invoices ask for.
_RECEIVABLE = """
WITH owed AS (
  SELECT tenant_id, currency, sum(total_nano - paid_nano - credited_nano + credit_beyond_nano
    - written_off_nano) AS nano
  FROM billing_invoice WHERE kind = 'invoice' AND status <> 'draft' GROUP BY tenant_id, currency
), booked AS (
  SELECT tenant_id, currency, sum(debits - credits) AS nano FROM billing_ledger_account
  WHERE kind = 'receivable' GROUP BY tenant_id, currency
)
SELECT tenant_id, currency, owed.nano AS owed_nano, booked.nano AS booked_nano
FROM owed FULL JOIN booked USING (tenant_id, currency)
WHERE coalesce(owed.nano, 0) <> coalesce(booked.nano, 0)"""

# Clearing: what is unbilled is the usage by invoice that no final invoice has asked for.
_UNBILLED = """
WITH posted AS (
  SELECT txn.tenant_id, txn.currency, sum(entry.side * entry.amount) AS nano
  FROM billing_ledger_txn AS txn JOIN billing_ledger_entry AS entry ON entry.txn_id = txn.id
  JOIN billing_ledger_account AS account ON account.id = entry.account_id
  WHERE txn.kind IN ('usage', 'correction') AND account.kind = 'unbilled'
  GROUP BY txn.tenant_id, txn.currency
), asked AS (
  SELECT tenant_id, currency, sum(exact_nano) AS nano FROM billing_invoice
  WHERE kind = 'invoice' AND status <> 'draft' AND NOT is_reopened GROUP BY tenant_id, currency
), booked AS (
  SELECT tenant_id, currency, sum(debits - credits) AS nano FROM billing_ledger_account
  WHERE kind = 'unbilled' GROUP BY tenant_id, currency
)
SELECT tenant_id, currency, booked.nano AS booked_nano, posted.nano AS posted_nano,
  asked.nano AS asked_nano
FROM booked FULL JOIN posted USING (tenant_id, currency) FULL JOIN asked USING (tenant_id, currency)
WHERE coalesce(booked.nano, 0) <> coalesce(posted.nano, 0) - coalesce(asked.nano, 0)"""

_CORRECTIONS = """
WITH kept AS (
  SELECT posting_key AS idem_key, sum(difference_nano) AS nano FROM billing_rating_difference
  GROUP BY posting_key HAVING sum(difference_nano) <> 0
), booked AS (
  SELECT txn.idem_key, sum(-entry.side * entry.amount) AS nano
  FROM billing_ledger_txn AS txn JOIN billing_ledger_entry AS entry ON entry.txn_id = txn.id
  JOIN billing_ledger_account AS account ON account.id = entry.account_id
  WHERE txn.idem_key LIKE 'rating:%%' AND account.kind = 'revenue' GROUP BY txn.idem_key
)
SELECT idem_key, kept.nano AS kept_nano, booked.nano AS booked_nano
FROM kept FULL JOIN booked USING (idem_key)
WHERE kept.nano IS DISTINCT FROM booked.nano"""

# What credit notes took back of an invoice, against what the invoice says of it.
_CREDITED = """
SELECT invoice.id AS invoice_id, invoice.number, invoice.credited_nano,
  coalesce(sum(note.total_nano), 0) AS notes_nano
FROM billing_invoice AS invoice LEFT JOIN billing_invoice AS note
  ON note.corrects_id = invoice.id AND note.kind = 'credit_note' AND note.status = 'issued'
WHERE invoice.kind = 'invoice' GROUP BY invoice.id
HAVING invoice.credited_nano <> coalesce(sum(note.total_nano), 0)
  OR coalesce(sum(note.total_nano), 0) > greatest(invoice.total_nano, 0)"""

INVOICE_CHECKS: Mapping[str, str] = {
    "invoice_lines": _LINES,
    "invoice_sums": _SUMS,
    "invoices_and_ledger": _POSTED,
    "invoice_numbers": _NUMBERS,
    "receivable": _RECEIVABLE,
    "unbilled": _UNBILLED,
    "corrections_and_ledger": _CORRECTIONS,
    "credit_notes": _CREDITED,
}
