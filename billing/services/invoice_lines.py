"""The lines of a period's invoice: sums of its events and corrections, each rounded once.

Read from a closed period alone, so that the same call gives the same lines again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import connection

from billing.models.invoices import InvoiceLine
from billing.models.usage import CHARGE_COLUMNS, TOKEN_COLUMNS
from billing.services.prices import load_price_sets
from turnpike.contracts import rating
from turnpike.contracts.snapshots import PriceSet
from turnpike.kernel import money

Kind = InvoiceLine.Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class LineDraft:
    """A line before it has a place: `exact` is what the ledger has, `amount` what is asked for."""

    kind: str
    exact: int
    amount: int
    quantity: int = 0
    price: int | None = None
    words: Mapping[str, Any] = field(default_factory=dict)


def usage_lines(*, period: int, currency: str) -> list[LineDraft]:
    """A line for each model, component, tier and price version; late usage has lines of its own."""
    rows = _rows(_USAGE, [period])
    price_sets = load_price_sets(row[2] for row in rows)
    lines = []
    for model, tier, price_set, discount_bp, is_late, component, quantity, exact, requests in rows:
        words = {
            "model": model,
            "tier": tier,
            "price_set_id": price_set,
            "discount_bp": discount_bp,
            "is_late": is_late,
            "component": component,
        }
        price = _one_price(price_sets.get(price_set), words, quantity, exact, requests)
        lines.append(
            LineDraft(
                kind=Kind.USAGE,
                exact=exact,
                amount=money.round_to_minor(exact, currency),
                quantity=quantity,
                price=price,
                words=words,
            )
        )
    return lines


def correction_lines(*, period: int, currency: str) -> list[LineDraft]:
    """A line for each re-rating whose differences the period takes."""
    return [
        LineDraft(
            kind=Kind.CORRECTION,
            exact=exact,
            amount=money.round_to_minor(exact, currency),
            quantity=requests,
            words={"text": reason},
        )
        for reason, exact, requests in _rows(_CORRECTIONS, [period])
    ]


def paid_ahead_lines(*, period: int, currency: str) -> list[LineDraft]:
    """What of the period was paid from credit when it was used, and so is not asked for again."""
    ((exact,),) = _rows(_PAID_AHEAD, {"period": period})
    if not exact:
        return []
    amount = money.round_to_minor(-exact, currency)
    return [LineDraft(kind=Kind.PAID_AHEAD, exact=-exact, amount=amount)]


def period_lines(*, period: int, currency: str) -> list[LineDraft]:
    """All lines of a period's invoice, in the order in which they are printed."""
    usage = usage_lines(period=period, currency=currency)
    corrections = correction_lines(period=period, currency=currency)
    return [*usage, *corrections, *paid_ahead_lines(period=period, currency=currency)]


def _one_price(
    price_set: PriceSet | None, words: Mapping[str, Any], quantity: int, exact: int, requests: int
) -> int | None:
    """The price that the whole line was charged at; None where there was more than one."""
    if price_set is None:
        return None
    variant = _variant_of(words["tier"])
    row = rating.find_price(
        price_set,
        model=words["model"],
        component=words["component"],
        variant=variant,
        prompt_tokens=0,
    )
    if row is None:
        return None
    per = 1 if row.nano_per_mtok is None else rating.TOKENS_PER_PRICE
    rate = row.nano_per_unit if row.nano_per_mtok is None else row.nano_per_mtok
    assert rate is not None
    factor = rating.BASIS_POINTS - words["discount_bp"]
    expected = money.half_even_div(quantity * rate * factor, per * rating.BASIS_POINTS)
    # Each request is rounded by itself, by half a nano at most.
    return rate if abs(expected - exact) <= requests + 1 else None


def _variant_of(tier: str) -> str:
    parts = sorted(part for part in tier.split("+") if part in ("batch", "fast", "us"))
    return "+".join(parts) or rating.STANDARD


def _rows(query: str, values: Sequence[Any] | Mapping[str, Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return list(cursor.fetchall())


_PARTS = ", ".join(
    f"('{name}', {TOKEN_COLUMNS[name]}, {column})" for name, column in CHARGE_COLUMNS.items()
)
_USAGE = f"""
SELECT model, tier, price_set_id, discount_bp, is_late, component,
  coalesce(sum(quantity) FILTER (WHERE nano <> 0), 0)::bigint, sum(nano)::bigint,
  count(*) FILTER (WHERE nano <> 0)
FROM billing_usage_event
CROSS JOIN LATERAL (VALUES {_PARTS}) AS part (component, quantity, nano)
WHERE period_id = %s
GROUP BY model, tier, price_set_id, discount_bp, is_late, component
HAVING bool_or(nano <> 0)
ORDER BY is_late, model, tier, price_set_id, discount_bp, component
"""  # noqa: S608 - our names
_CORRECTIONS = """
SELECT run.reason, sum(item.difference_nano)::bigint, count(*)
FROM billing_rating_difference AS item JOIN billing_rating_run AS run ON run.id = item.run_id
WHERE item.period_id = %s GROUP BY run.id, run.reason ORDER BY run.id
"""
# What a posting took from anything but `unbilled` was paid ahead. A posting takes from one or the
# other, as the wallet stood; one that came to nothing has no transaction, and owes nothing.
_PAID_AHEAD = """
WITH used AS (
  SELECT 'usage:' || posting_id || ':' || tenant_id AS idem_key, sum(amount_nano) AS nano
  FROM billing_usage_event WHERE period_id = %(period)s GROUP BY posting_id, tenant_id
  UNION ALL
  SELECT posting_key, sum(difference_nano) FROM billing_rating_difference
  WHERE period_id = %(period)s GROUP BY posting_key
)
SELECT coalesce(sum(used.nano), 0)::bigint
FROM used JOIN billing_ledger_txn AS txn ON txn.idem_key = used.idem_key
WHERE NOT EXISTS (
  SELECT FROM billing_ledger_entry AS entry
  JOIN billing_ledger_account AS account ON account.id = entry.account_id
  WHERE entry.txn_id = txn.id AND account.kind = 'unbilled')
"""
