"""`manage.py restore`: a backup becomes the platform's database, and proves that it agrees."""

import json
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from turnpike.embedded.engines import EngineProblem
from turnpike.kernel import clock
from turnpike.kernel.errors import TurnpikeError
from turnpike.management.restoring import restore_backup


class Command(BaseCommand):
    """Restores, posts what Redis still holds, empties Redis, publishes, and compares the books."""

    help = (
        "Restore a backup into an empty database. Stop control plane, workers and beat first. "
        "Exit code 1 if the books do not agree afterwards."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The command line."""
        parser.add_argument("folder", help="what `manage.py backup` made")
        parser.add_argument(
            "--force", action="store_true", help="drop everything that the database holds now"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *_arguments: Any, **options: Any) -> None:
        """Restore and report."""
        try:
            restored = restore_backup(
                Path(options["folder"]), is_forced=options["force"], at=clock.utc_now()
            )
        except (TurnpikeError, EngineProblem) as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            self.stdout.write(json.dumps(asdict(restored)))
        else:
            self.stdout.write(
                f"Restored {restored.backup['events']:,} events; {restored.posted_from_redis:,} "
                f"more were posted from Redis, {restored.dead_letters:,} could not be.\n"
                f"Unknown until gateways report it: {restored.gap_from} to {restored.gap_until}."
            )
            for row in restored.gap:
                words = ", ".join(f"{name} {value}" for name, value in row.items())
                self.stdout.write(f"In an upstream's report, and not here: {words}")
            for found in restored.checks:
                if found["differences"]:
                    self.stdout.write(f"{found['check']}: {found['differences']} differences")
            self.stdout.write("The books agree." if restored.is_good else "The books DISAGREE.")
        if not restored.is_good:
            sys.exit(1)
