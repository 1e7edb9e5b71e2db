"""Imports a catalogue of models and prices; the same file again changes nothing."""

import dataclasses
import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.models.catalog import DEFAULT_BOOK
from billing.services.catalog import SHIPPED_CATALOG, import_catalog
from turnpike.kernel.errors import InvalidInput


class Command(BaseCommand):
    """Brings models, aliases and prices to what a catalogue file says."""

    help = (
        "Import models, aliases and prices. Idempotent: price sets are added only where something"
        " differs, models that the file does not name stay."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The file, the book and the form of the answer."""
        parser.add_argument("path", nargs="?", type=Path, default=SHIPPED_CATALOG)
        parser.add_argument("--book", default=DEFAULT_BOOK, help="the price book to fill")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *_arguments: Any, **options: Any) -> None:
        """Import and say what changed."""
        try:
            result = import_catalog(options["path"], book=options["book"])
        except InvalidInput as error:
            raise CommandError(error.message) from error
        if options["json"]:
            self.stdout.write(json.dumps(dataclasses.asdict(result)))
            return
        self.stdout.write(
            f"{result.models_added} models added, {result.models_changed} changed,"
            f" {result.price_sets_added} price sets and {result.routes_added} routes added."
        )
