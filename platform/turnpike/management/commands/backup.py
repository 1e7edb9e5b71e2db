"""`manage.py backup`: everything in PostgreSQL, in a folder with a manifest."""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from turnpike.embedded.engines import EngineProblem
from turnpike.env import env
from turnpike.kernel import clock
from turnpike.kernel.errors import TurnpikeError
from turnpike.management.backups import make_backup


class Command(BaseCommand):
    """Makes a backup while the platform runs."""

    help = "Dump the database into a new folder, with a manifest. The platform may run meanwhile."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The command line."""
        parser.add_argument(
            "folder", nargs="?", help="where; a folder named by the time under STATE_DIR/backups"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *_arguments: Any, **options: Any) -> None:
        """Make it and say what it holds."""
        name = f"{clock.utc_now():%Y%m%dT%H%M%SZ}"
        folder = Path(options["folder"] or env().state_dir / "backups" / name)
        try:
            manifest = make_backup(folder)
        except (TurnpikeError, EngineProblem) as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            self.stdout.write(json.dumps({"folder": str(folder), **asdict(manifest)}))
            return
        self.stdout.write(
            f"{folder}: {manifest.dump_bytes:,} bytes, {manifest.events:,} events, "
            f"write-ahead log at {manifest.wal}."
        )
