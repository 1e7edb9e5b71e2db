"""`manage.py dead_letters`: what could not be posted, and what a person decides about it."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.ingest.retrying import discard_letter, find_letter, retry_letter
from billing.models.usage import DeadLetter
from billing.services.letters import list_letters
from turnpike.kernel import clock
from turnpike.kernel.errors import Conflict

LISTED_MAX = 1_000
BODY_SHOWN_MAX = 2_000


class Command(BaseCommand):
    """Lists, retries or discards dead letters."""

    help = "Usage events that could not be posted: list them, post them again, or discard them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The command line."""
        actions = parser.add_subparsers(dest="action", required=True)
        listing = actions.add_parser("list", help="show open letters, the oldest first")
        listing.add_argument("--all", action="store_true", help="closed letters too")
        listing.add_argument("--json", action="store_true", help="one JSON object a line")
        for name, text in (
            ("retry", "post letters again"),
            ("discard", "close letters without a charge"),
        ):
            action = actions.add_parser(name, help=text)
            action.add_argument("id", nargs="*", type=int, help="numbers of letters")
            action.add_argument("--all", action="store_true", help="every open letter")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Do what was asked."""
        if options["action"] == "list":
            self._list(is_open=not options["all"], is_json=options["json"])
            return
        letters = self._chosen(options)
        act = self._retry if options["action"] == "retry" else self._discard
        if sum(act(letter) for letter in letters) < len(letters):
            raise CommandError("Some letters could not be posted.")

    def _list(self, *, is_open: bool, is_json: bool) -> None:
        for letter in list_letters(is_open=is_open, limit=LISTED_MAX):
            if is_json:
                self.stdout.write(json.dumps(_as_json(letter)))
            else:
                state = letter.resolution or "open"
                at = clock.rfc3339(letter.first_at)
                self.stdout.write(f"{letter.pk}  {at}  {state}  tries {letter.tries}")
                self.stdout.write(f"    {letter.stream} {letter.stream_id}: {letter.error}")

    def _chosen(self, options: dict[str, Any]) -> list[DeadLetter]:
        if options["all"]:
            return list(list_letters(limit=LISTED_MAX))
        if not options["id"]:
            raise CommandError("Name letters by number, or say --all.")
        found = [(number, find_letter(number)) for number in options["id"]]
        missing = [str(number) for number, letter in found if letter is None]
        if missing:
            raise CommandError(f"No open letter {', '.join(missing)}.")
        return [letter for _, letter in found if letter is not None]

    def _retry(self, letter: DeadLetter) -> bool:
        try:
            tenant = retry_letter(letter)
        except Conflict as error:
            self.stderr.write(f"{letter.pk}: {error.message}")
            return False
        self.stdout.write(f"{letter.pk}: posted for tenant {tenant}")
        return True

    def _discard(self, letter: DeadLetter) -> bool:
        discard_letter(letter)
        self.stdout.write(f"{letter.pk}: discarded")
        return True


def _as_json(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.pk,
        "stream": letter.stream,
        "stream_id": letter.stream_id,
        "request": None if letter.request_id is None else str(letter.request_id),
        "error": letter.error,
        "tries": letter.tries,
        "first_at": clock.rfc3339(letter.first_at),
        "resolution": letter.resolution or None,
        "body": bytes(letter.body[:BODY_SHOWN_MAX]).decode(errors="backslashreplace"),
    }
