"""One cluster for all tests of faults, and what they wait for."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.storm.client import Connection, Seen
from tests.storm.oracle import Charged, read_charged
from tests.support.cluster import Cluster, running_cluster
from turnpike.embedded import process
from turnpike.kernel import ids, keyspace

WAIT_SECONDS_MAX = 60.0
MODEL = "claude-sonnet-4-5"
TENANTS: tuple[dict[str, Any], ...] = (
    {"name": "rich", "tier": "enterprise", "credit": "500"},
    # A request for 1,000 tokens holds 1.5 cents and a little: this is enough for ten and a half.
    {"name": "fence", "tier": "enterprise", "credit": "0.157"},
    {"name": "poor", "tier": "enterprise", "credit": "1"},
    {"name": "keyed", "tier": "enterprise", "credit": "50"},
    {"name": "one slot", "tier": "enterprise", "credit": "50", "limits": {"concurrency": 1}},
    # So little that nobody is admitted without Redis, where a limit holds in sum and not exactly.
    {"name": "four slots", "tier": "enterprise", "credit": "1", "limits": {"concurrency": 4}},
)


@dataclass(frozen=True, slots=True)
class World:
    """The cluster, and what a test does to it and sees of it."""

    cluster: Cluster
    keys: dict[str, str]
    connections: list[Connection] = field(default_factory=list)

    def connect(self) -> Connection:
        """A connection that ends with the test, however the test ends."""
        connection = Connection(self.cluster.port)
        self.connections.append(connection)
        return connection

    def hang_up(self) -> None:
        """Close every connection that was made."""
        while self.connections:
            self.connections.pop().close()

    async def ask(self, tenant: str, **changes: Any) -> Seen:
        """A whole answer, over a connection of its own."""
        connection = self.connect()
        try:
            return await self.ask_over(connection, tenant, **changes)
        finally:
            connection.close()

    async def ask_over(
        self, connection: Connection, tenant: str, *, orders: str = "", **changes: Any
    ) -> Seen:
        """A whole answer, over a connection that stays."""
        body = {**BODY, **changes}
        seen = Seen(tenant=tenant, is_stream=body["stream"], orders=orders)
        return await connection.ask(seen, key=self.keys[tenant], body=body)

    async def stream(self, tenant: str, *, tokens: int = 100, pace_ms: int = 100) -> "Running":
        """A stream that has begun: five tokens a chunk, one chunk in `pace_ms`."""
        connection = self.connect()
        seen = Seen(tenant=tenant, is_stream=True, orders=f"tokens={tokens}; pace_ms={pace_ms}")
        body = {**BODY, "stream": True}
        task = asyncio.create_task(connection.ask(seen, key=self.keys[tenant], body=body))
        await until(lambda: seen.characters > 0 or task.done())
        return Running(connection=connection, seen=seen, task=task)

    def number_of(self, tenant: str) -> int:
        """A tenant's number."""
        query = "SELECT id FROM accounts_tenant WHERE name = %s"
        number: int = self.cluster.rows(query, tenant)[0][0]
        return number

    def record_field(self, seen: Seen, name: str) -> bytes:
        """A field of a request's record in Redis; empty where there is none."""
        rid = str(ids.parse_public_id(ids.REQUEST, seen.request_id))
        with self.cluster.redis() as client:
            return client.hget(keyspace.record(self.number_of(seen.tenant), rid), name) or b""

    def slots(self, tenant: str) -> list[str]:
        """The requests that have a slot of the tenant."""
        with self.cluster.redis() as client:
            members = client.zrange(keyspace.slots(self.number_of(tenant), "t"), 0, -1)
        return [member.decode() for member in members]

    def event(self, seen: Seen) -> Charged | None:
        """What was charged for a request so far."""
        rid = ids.parse_public_id(ids.REQUEST, seen.request_id)
        return next((item for item in read_charged(self.cluster) if item.rid == rid), None)

    def billed_output(self, seen: Seen) -> int:
        """The output tokens that the simulator billed for a request."""
        (row,) = (
            row for row in self.cluster.billed() if row["turnpike_request_id"] == seen.request_id
        )
        tokens: int = row["usage"]["output_tokens"]
        return tokens

    async def event_of_rank(self, seen: Seen, rank: int) -> Charged:
        """Wait until a request is charged by knowledge of this rank or a better one."""
        found: list[Charged] = []

        def is_there() -> bool:
            event = self.event(seen)
            if event is not None and event.rank >= rank:
                found.append(event)
            return bool(found)

        await until(is_there)
        return found[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A stream under way."""

    connection: Connection
    seen: Seen
    task: "asyncio.Task[Seen]"

    async def end(self) -> Seen:
        """Read to the end."""
        seen = await self.task
        self.connection.close()
        return seen

    async def leave(self) -> None:
        """Hang up."""
        self.task.cancel()
        self.connection.close()
        await asyncio.gather(self.task, return_exceptions=True)


BODY: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": 1_000,
    "stream": False,
    "messages": [{"role": "user", "content": "Hello"}],
}


async def until(condition: Callable[[], bool], *, seconds_max: float = WAIT_SECONDS_MAX) -> None:
    """Wait for a condition, polled in a thread; fail when the time is over."""
    assert await asyncio.to_thread(process.wait_until, condition, seconds_max=seconds_max)


@pytest.fixture(scope="session")
def _cluster_of_faults() -> Iterator[World]:
    with running_cluster(tenants=TENANTS) as (cluster, keys):
        cluster.start_ingest("ingest-0")
        yield World(cluster, keys)


@pytest.fixture
async def world(_cluster_of_faults: World) -> AsyncIterator[World]:
    """The cluster, whole again after each test."""
    yield _cluster_of_faults
    _cluster_of_faults.hang_up()
    _cluster_of_faults.cluster.wait_until_ready()
    await until_all_admit(_cluster_of_faults)
    _cluster_of_faults.hang_up()
    await asyncio.sleep(0)  # the loop's turn in which sockets are really closed


async def until_all_admit(world: World) -> None:
    """Wait until every worker of the gateway admits; the kernel chooses which of them is asked."""
    lacking = set(world.cluster.worker_pids())
    last: Seen | None = None
    try:
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while lacking:
                connection = world.connect()
                last = await world.ask_over(connection, "rich", max_tokens=8)
                if last.is_answered:
                    lacking.discard(world.cluster.worker_at(connection.local_port))
                connection.close()
                lacking &= set(world.cluster.worker_pids())
    except TimeoutError as error:
        raise AssertionError(f"workers {lacking} do not admit: {last}") from error


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share the cluster share the worker that started it."""
    for item in items:
        if "world" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("cluster"))
            item.add_marker(pytest.mark.e2e)
