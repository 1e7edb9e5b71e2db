"""`manage.py reconcile`: does everything that was counted twice agree?"""

import json
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand

from billing.services.reconciliation import reconcile


class Command(BaseCommand):
    """Runs every check and exits with 1 if one of them found a difference."""

    help = (
        "Compare events, ledger, rollups, counters, wallets and Redis; exit code 1 if they differ."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The command line."""
        parser.add_argument("--json", action="store_true", help="print the result as JSON")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print what was found."""
        findings = reconcile()
        is_good = not any(finding.differences for finding in findings)
        if options["json"]:
            rows = [asdict(finding) for finding in findings]
            self.stdout.write(json.dumps({"ok": is_good, "checks": rows}))
        else:
            for finding in findings:
                word = f"{finding.differences} differences" if finding.differences else "ok"
                self.stdout.write(f"{finding.check:24} {word}")
                for example in finding.examples:
                    self.stdout.write(f"    {example}")
        if not is_good:
            sys.exit(1)
