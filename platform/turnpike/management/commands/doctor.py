"""Checks configuration, servers, persistence, migrations, clocks and upstreams."""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand

from turnpike.doctor.configuration import look_at_configuration
from turnpike.doctor.findings import Finding
from turnpike.doctor.servers import look_at_postgres, look_at_redis
from turnpike.doctor.upstreams import look_at_upstreams
from turnpike.env import env

SIGNS = {"ok": "ok     ", "warning": "note   ", "error": "WRONG  "}


class Command(BaseCommand):
    """Reports every finding; exit code 1 when something is wrong."""

    help = "Check configuration, servers, persistence, migrations, clocks and upstreams."
    # What they would refuse is what this command reports.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the flags."""
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *_arguments: Any, **options: Any) -> None:
        """Look at everything and say how it is."""
        findings = list(look_at_everything())
        is_well = all(finding.level != "error" for finding in findings)
        if options["json"]:
            report = {"ok": is_well, "findings": [asdict(finding) for finding in findings]}
            self.stdout.write(json.dumps(report))
        else:
            for finding in findings:
                line = f"{SIGNS[finding.level]} {finding.subject:<18} {finding.message}"
                self.stdout.write(line)
        sys.exit(0 if is_well else 1)


def look_at_everything() -> Iterator[Finding]:
    """All findings, in the order in which one would repair things."""
    yield from look_at_configuration(env())
    yield from look_at_postgres()
    yield from look_at_redis()
    yield from look_at_upstreams(env())
