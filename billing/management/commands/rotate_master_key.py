"""`manage.py rotate_master_key`: seals upstream credentials with the first master key."""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.services.master_keys import Resealing, reseal_credentials
from turnpike.control.scope import platform_scope


class Command(BaseCommand):
    """Reseals credentials; prints counts and names, never a secret."""

    help = (
        "Seal every upstream credential with the first key of MASTER_KEYS. Put the new key first, "
        "restart all processes, run this, and take the old key out once nothing is left."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The command line."""
        parser.add_argument("--dry-run", action="store_true", help="say what would be done")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Reseal, and say what is left."""
        with platform_scope("billing.rotate_master_key"):
            done = reseal_credentials(is_dry_run=options["dry_run"])
        if options["json"]:
            self.stdout.write(json.dumps(asdict(done)))
        else:
            self._tell(done, is_dry_run=options["dry_run"])
        if done.unopened:
            raise CommandError(
                f"{len(done.unopened)} credentials are opened by no key of MASTER_KEYS."
            )

    def _tell(self, done: Resealing, *, is_dry_run: bool) -> None:
        verb = "would be sealed" if is_dry_run else "sealed"
        self.stdout.write(f"{done.resealed} {verb} with master key {done.master_key}.")
        self.stdout.write(f"{done.current} had it already.")
        for name in done.unopened:
            self.stdout.write(f"left: {name}")
