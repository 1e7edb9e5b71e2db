"""`manage.py compare_upstreams`: do the upstreams' usage reports say what we say?"""

import json
import sys
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand

from billing.management.commands.rebuild_rollups import utc_day
from billing.services.upstream_reports import compare_upstreams
from turnpike.kernel import clock

DAYS = 7


class Command(BaseCommand):
    """Compares whole days and exits with 1 if one differs."""

    help = "Compare attempts with the usage reports of upstreams that have a credential 'admin'."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The command line."""
        parser.add_argument("--since", type=utc_day, help=f"first day; default: {DAYS} days ago")
        parser.add_argument("--until", type=utc_day, help="day after the last; default: today")
        parser.add_argument("--json", action="store_true", help="print the result as JSON")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print each difference."""
        today = clock.utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
        until = options["until"] or today
        since = options["since"] or until - timedelta(days=DAYS)
        found = compare_upstreams(since=since, until=until)
        if options["json"]:
            self.stdout.write(json.dumps({"ok": not found, "differences": found}))
        else:
            self.stdout.write("\n".join(found) or "The reports agree.")
        if found:
            sys.exit(1)
