"""`manage.py rebuild_rollups`: rollups from events, day by day."""

import json
from argparse import ArgumentParser, ArgumentTypeError
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand

from billing.queries.requests import find_first_event_at
from billing.services.rollups import rebuild_rollups
from turnpike.kernel import clock

DAY = timedelta(days=1)


def utc_day(text: str) -> datetime:
    """A date as its first instant in UTC."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError as error:
        raise ArgumentTypeError(f"Not a date like 2026-11-21: {text!r}.") from error


class Command(BaseCommand):
    """Deletes and rebuilds the rollups of a span; ingest waits for one day at a time."""

    help = "Rebuild the usage rollups from the events, for all of time or a span of days (UTC)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The command line."""
        parser.add_argument("--since", type=utc_day, help="first day; default: the first event's")
        parser.add_argument("--until", type=utc_day, help="day after the last; default: tomorrow")
        parser.add_argument("--json", action="store_true", help="print the result as JSON")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Rebuild day by day."""
        today = clock.utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
        first = options["since"] or find_first_event_at() or today
        day = first.replace(hour=0, minute=0, second=0, microsecond=0)
        until = options["until"] or today + 2 * DAY
        total, days = max(1, (until - day) // DAY), 0
        rows = 0
        while day < until:
            rows += rebuild_rollups(since=day, until=min(day + DAY, until))
            day += DAY
            days += 1
            self.stderr.write(f"\r{days}/{total} days, {rows} rows", ending="")
        self.stderr.write("")
        if options["json"]:
            self.stdout.write(json.dumps({"days": days, "rows": rows}))
