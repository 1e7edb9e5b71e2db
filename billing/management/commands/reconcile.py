"""`manage.py reconcile`: does everything that was counted twice agree?"""

import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from billing.services.reconciliation import reconcile_and_keep


class Command(BaseCommand):
    """Runs every check, keeps the result, and exits with 1 if one of them found a difference."""

    help = (
        "Compare events, ledger, rollups, counters, wallets and Redis; exit code 1 if they differ."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The command line."""
        parser.add_argument("--json", action="store_true", help="print the result as JSON")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print what was found."""
        run = reconcile_and_keep(actor="command")
        is_good = not run.differences
        if options["json"]:
            self.stdout.write(json.dumps({"ok": is_good, "checks": run.findings}))
        else:
            for finding in run.findings:
                count = finding["differences"]
                word = f"{count} differences" if count else "ok"
                self.stdout.write(f"{finding['check']:24} {word}")
                for example in finding["examples"]:
                    self.stdout.write(f"    {example}")
        if not is_good:
            sys.exit(1)
