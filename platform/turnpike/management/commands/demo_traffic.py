"""demo_traffic: some minutes of several made-up tenants' requests, through the real data plane."""

import asyncio
import json
import logging
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from turnpike.embedded.state import StateDir
from turnpike.env import env
from turnpike.kernel import clock
from turnpike.kernel.errors import TurnpikeError
from turnpike.management.traffic import Tally, Traffic
from turnpike.management.traffic_history import DAYS_MAX, write_history
from turnpike.management.traffic_tenants import make_tenants
from turnpike.web.upstreams import is_simulated

MINUTES_MAX = 30.0
SEED = 20_261_121


class Command(BaseCommand):
    """Sends believable traffic, so that charts show something true from the first look."""

    help = (
        "Send some minutes of believable requests of made-up tenants to this installation, which"
        " has to run. Their names end in (demo)."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The command line."""
        parser.add_argument("--minutes", type=float, default=3.0, help="0 to 30; default: 3")
        parser.add_argument(
            "--history",
            type=int,
            default=0,
            metavar="DAYS",
            help="also make up usage of that many days before today, once (at most 60)",
        )
        parser.add_argument("--seed", type=int, default=SEED, help="another mixture")
        parser.add_argument("--json", action="store_true", help="print one JSON object, no bar")
        parser.add_argument(
            "--spend",
            action="store_true",
            help="send although a real upstream answers, which costs money",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Make the tenants, send, and say what came back."""
        # Its line for each request would tear the bar.
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        minutes, days = options["minutes"], options["history"]
        if not 0 <= minutes <= MINUTES_MAX or not 0 <= days <= DAYS_MAX:
            raise CommandError(f"At most {MINUTES_MAX:g} minutes and {DAYS_MAX} days.")
        if minutes and not (is_simulated() or options["spend"]):
            raise CommandError("A real upstream answers here: say --spend to pay for this.")
        try:
            tenants = make_tenants(StateDir(path=env().state_dir))
        except TurnpikeError as error:
            raise CommandError(error.message) from error
        with _progress(is_quiet=options["json"]) as progress:
            bar = progress.add_task("History", total=days, said="", visible=days > 0)
            past = 0
            if days:
                past = write_history(
                    tenants, days=days, seed=options["seed"], on_day=lambda: progress.advance(bar)
                )
            traffic = Traffic(
                base_url=settings.PUBLIC_BASE_URL, tenants=tenants, seed=options["seed"]
            )
            tally = _send(traffic, progress, seconds=minutes * 60)
        self._report(tally, past=past, is_json=options["json"])

    def _report(self, tally: Tally, *, past: int, is_json: bool) -> None:
        statuses = dict(sorted(tally.statuses.items()))
        report = {
            "requests": tally.sent,
            "statuses": statuses,
            "tenants": dict(sorted(tally.tenants.items())),
            "history_events": past,
        }
        if is_json:
            self.stdout.write(json.dumps(report, ensure_ascii=False))
            return
        words = ", ".join(f"{status}: {count}" for status, count in statuses.items())
        self.stdout.write(f"{tally.sent} requests were answered ({words or 'none'}).")
        if past:
            self.stdout.write(f"{past} events of the days before were made up.")


def _progress(*, is_quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True, quiet=is_quiet),
        transient=True,
    )


def _send(traffic: Traffic, progress: Progress, *, seconds: float) -> Tally:
    begun_at = clock.monotonic_seconds()
    bar = progress.add_task("Requests", total=seconds, said="", visible=seconds > 0)

    def show() -> None:
        refused = sum(n for status, n in traffic.tally.statuses.items() if status != "200")
        said = f"{traffic.tally.sent} answered, {refused} refused"
        progress.update(bar, completed=clock.monotonic_seconds() - begun_at, said=said)

    return asyncio.run(traffic.run(seconds=seconds, on_answer=show)) if seconds else traffic.tally
