"""Going through every page of both consoles as its owner and as the operator, and measuring it."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import connection
from django.test import Client

from accounts.models import Role
from tests.console.console_world import World, client_for
from tests.operator_console.operator_world import browser_of, make_operator
from tests.pages.addresses import find_pages
from tests.scale.plans import Asked, watching

PARTS = ("/console", "/operator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a page took: the medians of its rounds, in milliseconds, and its queries."""

    path: str
    server_ms: float
    database_ms: float
    queries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tour:
    """The pages, and browsers of people who may open them."""

    paths: tuple[str, ...]
    browsers: Mapping[str, Client]

    def open(self, path: str) -> None:
        """Get a page, which must be there."""
        answer = self.browsers[path.split("/")[1]].get(path)
        assert answer.status_code == 200, f"{path}: {answer.status_code}"
        assert answer.content

    def ask(self, path: str, *, with_plans: bool = True, are_run: bool = False) -> Asked:
        """The queries of a page, with their plans."""
        with watching(with_plans=with_plans, are_run=are_run) as asked:
            self.open(path)
        return asked

    def measure(self, path: str, *, rounds: int) -> Cost:
        """Open a page some times: the work of this process and of the database's for it."""
        took = [_measure(lambda: self.open(path)) for _ in range(rounds)]
        return Cost(
            path=path,
            server_ms=statistics.median(server for server, _, _ in took),
            database_ms=statistics.median(database for _, database, _ in took),
            queries=max(queries for _, _, queries in took),
        )


def make_tour(world: World) -> Tour:
    """All pages with objects of this organization, for its owner and for an operator."""
    paths, _lacking = find_pages(world.shop.tenant.public_id, world.newest)
    browsers = {
        "console": client_for(world.members[Role.OWNER]),
        "operator": browser_of(make_operator(password="a long enough password")),
    }
    return Tour(
        # An address that only leads on is no page; one whose object is not here is looked at
        # where there is one.
        paths=tuple(
            path
            for path in paths
            if path.startswith(PARTS) and browsers[path.split("/")[1]].get(path).status_code == 200
        ),
        browsers=browsers,
    )


def table(costs: Sequence[Cost]) -> str:
    """The pages as people read them, the slowest first."""
    rows = sorted(costs, key=lambda cost: -cost.server_ms)
    lines = [f"{'ms':>8} {'of it SQL':>10} {'queries':>8}  page"]
    lines += [
        f"{row.server_ms:8.1f} {row.database_ms:10.1f} {row.queries:8}  {row.path}" for row in rows
    ]
    return "\n".join(lines)


def _measure(call: Callable[[], None]) -> tuple[float, float, int]:
    queries = 0

    def keep(execute: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal queries
        queries += 1
        return execute(*arguments)

    connection.ensure_connection()
    worked, began = _database_ms(), time.process_time()
    with connection.execute_wrapper(keep):
        call()
    database_ms = _database_ms() - worked
    return (time.process_time() - began) * 1_000 + database_ms, database_ms, queries


def _database_ms() -> float:
    """How long the database's process of this connection has worked, not waited for its turn."""
    pid = connection.connection.info.backend_pid
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1_000_000
