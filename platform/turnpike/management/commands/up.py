"""Runs Turnpike on this machine: servers, migrations, simulator, worker, web and beat."""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from django.core.management.base import BaseCommand

from turnpike.embedded.engines import EngineProblem
from turnpike.embedded.output import Output
from turnpike.embedded.plan import Plan, make_plan
from turnpike.embedded.state import DEMO_FILE, StateDir
from turnpike.embedded.supervisor import Supervisor
from turnpike.env import Env

EXAMPLE_MODEL = "claude-sonnet-5"


class Command(BaseCommand):
    """Starts everything and stays in the foreground; Ctrl-C stops it all."""

    help = "Run Turnpike on this machine: servers, migrations, simulator, worker, web and beat."
    # Secrets and servers are what this command makes.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the flags."""
        parser.add_argument("--log-json", action="store_true", help="one JSON object a line")
        parser.add_argument(
            "--system-servers",
            action="store_true",
            help="prefer PostgreSQL and Valkey or Redis from PATH to the wheels'",
        )

    def handle(self, *_arguments: Any, **options: Any) -> None:
        """Run until a signal comes; exit code 1 with a reason when that cannot be."""
        # Not turnpike.env.env(): the file that an earlier run kept names that run's servers.
        env = Env()
        state = StateDir(path=env.state_dir.resolve())
        output = Output(is_json=options["log_json"])
        try:
            with state.locked():
                _run(env, state, output, options)
        except EngineProblem as problem:
            output.say(f"Turnpike cannot run: {problem}", level="error")
            sys.exit(1)


def _run(env: Env, state: StateDir, output: Output, options: Mapping[str, Any]) -> None:
    for name in state.end_leftovers():
        output.say(f"Stopped {name}, which an earlier run had left behind.")
    plan = make_plan(
        env=env,
        state=state,
        is_system_first=options["system_servers"],
        is_json=options["log_json"],
    )
    state.write_environment({name: plan.environment[name] for name in _kept(plan)})
    supervisor = Supervisor(state=state, output=output)
    supervisor.run(plan.stages, on_ready=lambda: _greet(state, output))
    output.say("Stopped.")


def _kept(plan: Plan) -> list[str]:
    """The variables that another terminal's commands need and this shell may not have."""
    names = {field.upper() for field in Env.model_fields} - {"LOG_JSON", "DATABASE_AS_OWNER"}
    return sorted(names & set(plan.environment))


def _greet(state: StateDir, output: Output) -> None:
    demo = state.read_json(DEMO_FILE)
    if not demo:
        output.say("Ready.", event="ready")
        return
    body = {
        "model": EXAMPLE_MODEL,
        "max_tokens": 128,
        "messages": [{"role": "user", "content": "Hello"}],
    }
    lines = (
        "",
        "  Turnpike is ready.",
        f"  Console   {demo['console_url']}",
        f"  Sign in   {demo['owner']['email']}  {demo['owner']['password']}",
        f"  Operator  {demo['operator']['email']}  {demo['operator']['password']}",
        f"  API       {demo['base_url']}",
        f"  API key   {demo['api_key']}",
        f"  Upstream  {demo['answered_by']}",
        "",
        f"  curl {demo['base_url']}/v1/messages -H 'x-api-key: {demo['api_key']}' \\",
        "    -H 'anthropic-version: 2023-06-01' -H 'content-type: application/json' \\",
        f"    -d '{json.dumps(body)}'",
        "",
        "  Charts are empty yet: `python manage.py demo_traffic --history 30` in another terminal.",
        "",
    )
    output.say("\n".join(lines), event="ready")
