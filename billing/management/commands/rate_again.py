"""`manage.py rate_again`: re-rating after a price error, posted as differences."""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.api.operator_prices import correction_answer, price_rows
from billing.management.commands.rebuild_rollups import utc_day
from billing.services.correction import make_corrected_set, rate_again
from billing.services.rehearsal import Proposal, rehearse
from turnpike.kernel import clock, money
from turnpike.kernel.errors import TurnpikeError


class Command(BaseCommand):
    """Rates a span's requests under the prices that should have been in force."""

    help = (
        "Rate requests again under the right prices and post the differences, to the month itself "
        "or as credit notes. With --dry-run only say what a change would have come to."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The command line."""
        parser.add_argument("--since", type=utc_day, required=True, help="first day (UTC)")
        parser.add_argument("--until", type=utc_day, required=True, help="day after the last")
        parser.add_argument("--price-set", type=int, help="number of the set that was wrong")
        parser.add_argument(
            "--prices",
            type=Path,
            help="JSON list of {model, component, variant, min_input, price}, per million or unit",
        )
        parser.add_argument("--discount-bp", type=int, help="with --dry-run: another discount")
        parser.add_argument("--tier", default="", help="with --dry-run: another tier's limits")
        parser.add_argument("--reason", default="", help="printed on credit notes")
        parser.add_argument("--key", default="", help="the run's name; once under each")
        parser.add_argument("--dry-run", action="store_true", help="rehearse; write nothing")
        parser.add_argument("--json", action="store_true", help="print the result as JSON")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Rehearse or correct."""
        try:
            rows = _read_prices(options["prices"])
            answer = _rehearse(rows, options) if options["dry_run"] else _correct(rows, options)
        except (TurnpikeError, OSError, ValueError, KeyError) as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            self.stdout.write(json.dumps(answer))
            return
        for row in answer["data"] if options["dry_run"] else [answer]:
            self.stdout.write("  ".join(f"{name}={value}" for name, value in row.items()))


def _read_prices(path: Path | None) -> list[Any]:
    if path is None:
        return []
    items = json.loads(path.read_text(encoding="utf-8"))
    return price_rows([{**item, "price": money.parse_amount(item["price"])} for item in items])


def _rehearse(rows: list[Any], options: dict[str, Any]) -> dict[str, Any]:
    proposal = Proposal(rows=rows, discount_bp=options["discount_bp"], tier=options["tier"])
    outcomes = rehearse(since=options["since"], until=options["until"], proposal=proposal)
    return {
        "data": [
            {
                "tenant": item.tenant,
                "currency": item.currency,
                "requests": item.requests,
                "before": money.format_amount(item.before_nano),
                "after": money.format_amount(item.after_nano),
                "refused": item.refused,
            }
            for item in outcomes
        ]
    }


def _correct(rows: list[Any], options: dict[str, Any]) -> dict[str, Any]:
    if not (options["price_set"] and rows and options["reason"] and options["key"]):
        raise ValueError("--price-set, --prices, --reason and --key are needed to correct.")
    right = make_corrected_set(
        wrong_set=options["price_set"], rows=rows, name=f"corrected {options['key']}"[:100]
    )
    result = rate_again(
        wrong_set=options["price_set"],
        right_set=right.pk,
        since=options["since"],
        until=options["until"],
        reason=options["reason"],
        idempotency_key=options["key"],
        actor="system",
        at=clock.utc_now(),
    )
    return correction_answer(result)
