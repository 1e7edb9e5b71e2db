"""Makes what a fresh installation needs: catalogue, an upstream, an operator, a demo tenant."""

import json
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from billing.models import Upstream
from billing.services.catalog import import_catalog
from billing.services.publication import check_cold
from billing.services.upstreams import add_upstream, set_enabled
from turnpike.control.scope import platform_scope
from turnpike.embedded.state import StateDir
from turnpike.env import Env, env
from turnpike.kernel.errors import TurnpikeError
from turnpike.management import demo

SIMULATOR, ANTHROPIC = "simulator", "anthropic"
SIMULATOR_SECRET = "any-key-opens-the-simulator"  # noqa: S105 -- no secret: it wants a key, any
ANTHROPIC_URL = "https://api.anthropic.com"


class Command(BaseCommand):
    """Idempotent: a second run prints the same again."""

    help = "Make the catalogue, tiers, an upstream, an operator and a demo tenant; idempotent."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the flags."""
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *_arguments: Any, **options: Any) -> None:
        """Make what is missing, publish, and say how to sign in and call."""
        variables = env()
        state = StateDir(path=variables.state_dir)
        simulator_url = f"http://127.0.0.1:{variables.simulator_port or variables.port + 1}"
        try:
            with platform_scope("bootstrap"):
                import_catalog()
                answered_by = set_up_upstreams(variables, simulator_url=simulator_url)
            made = demo.make_demo(state)
            check_cold()
        except TurnpikeError as error:
            raise CommandError(error.message) from error
        report = demo.report_of(
            made,
            console_url=settings.PUBLIC_BASE_URL,
            simulator_url=simulator_url,
            answered_by=answered_by,
        )
        demo.keep(state, report)
        if options["json"]:
            self.stdout.write(json.dumps(report))
        else:
            self.stdout.write(f"Tenant {report['tenant']} is ready; {answered_by} answers.")


def set_up_upstreams(variables: Env, *, simulator_url: str) -> str:
    """Let Anthropic answer where there is a key for it, else the simulator; says who answers."""
    if variables.anthropic_api_key:
        add_upstream(
            name=ANTHROPIC,
            kind=Upstream.Kind.ANTHROPIC,
            base_url=ANTHROPIC_URL,
            credential=variables.anthropic_api_key,
        )
    others = list(
        Upstream.objects.filter(is_enabled=True, is_simulator=False).values_list("name", flat=True)
    )
    if others and variables.simulator_control:
        raise CommandError("SIMULATOR_CONTROL is not for an installation with a real upstream.")
    if others:
        # What a model did not say is never made up beside what it did.
        if Upstream.objects.filter(name=SIMULATOR, is_enabled=True).exists():
            set_enabled(name=SIMULATOR, is_enabled=False)
        return ", ".join(others)
    add_upstream(
        name=SIMULATOR,
        kind=Upstream.Kind.ANTHROPIC,
        base_url=simulator_url,
        credential=SIMULATOR_SECRET,
        is_simulator=True,
        send_request_id=True,
    )
    return SIMULATOR
