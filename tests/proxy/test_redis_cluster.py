"""The link to a cluster, against a real one of two primaries: slots that move, nodes that die."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from proxy.redis_cluster import RedisCluster, make_link
from proxy.redis_map import Redirection, redirection_of
from proxy.redis_pipe import RedisAway, RedisPipe, RedisReplyError
from tests.support.valkey_nodes import Node, ValkeyNodes, running_nodes
from turnpike.kernel import keyspace
from turnpike.kernel.cluster_url import parse_cluster_url

# One key on each of the two, and a pair that shares a slot with the second.
ON_FIRST, ON_SECOND = "{b}", "{a}"


@dataclass(frozen=True, slots=True)
class LuaScript:
    source: str

    @property
    def sha(self) -> str:
        return hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


COUNT = LuaScript("return redis.call('INCRBY', KEYS[1], ARGV[1])")


@pytest.fixture(scope="module")
def _running() -> Iterator[ValkeyNodes]:
    with running_nodes(primaries=2, has_replicas=False) as nodes:
        yield nodes


@pytest.fixture
def nodes(_running: ValkeyNodes) -> ValkeyNodes:
    """Two primaries without replicas, and without data."""
    for node in _running.nodes:
        node.ask("FLUSHALL")
        node.ask("SCRIPT", "FLUSH")
    return _running


@pytest.fixture
async def link(nodes: ValkeyNodes) -> AsyncIterator[RedisCluster]:
    """A link to the two."""
    one = RedisCluster(parse_cluster_url(nodes.url), timeout_seconds=5)
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
def moved(nodes: ValkeyNodes) -> Iterator["Move"]:
    """A slot of the second's that a test moves to the first; it comes back afterwards."""
    move = Move(nodes, key=ON_SECOND)
    yield move
    move.back()


class Move:
    """A slot on its way from one node to another, as an operator moves it."""

    def __init__(self, nodes: ValkeyNodes, *, key: str) -> None:
        self.slot = keyspace.slot_of(key.encode())
        self.target, self.source = nodes.nodes
        assert nodes.primary_of(key) is self.source
        self.names = [node.ask("CLUSTER", "MYID") for node in (self.source, self.target)]

    def begin(self) -> None:
        """Both know that it moves; what it holds is still where it was."""
        self.target.ask("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.names[0])
        self.source.ask("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.names[1])

    def carry(self, *keys: str) -> None:
        """Take some keys across."""
        host, port = "127.0.0.1", self.target.port
        self.source.ask("MIGRATE", host, port, "", 0, 5_000, "KEYS", *keys)

    def end(self) -> None:
        """The slot is the target's."""
        for node in (self.target, self.source):
            node.ask("CLUSTER", "SETSLOT", self.slot, "NODE", self.names[1])

    def back(self) -> None:
        """Empty, and where it was."""
        for node in (self.source, self.target):
            node.ask("FLUSHALL")
            node.ask("CLUSTER", "SETSLOT", self.slot, "STABLE")
            node.ask("CLUSTER", "SETSLOT", self.slot, "NODE", self.names[0])


async def test_commands_reach_the_node_that_has_their_key(
    link: RedisCluster, nodes: ValkeyNodes
) -> None:
    first, second = nodes.nodes

    await link.execute("SET", ON_FIRST, "1")
    await link.execute("SET", ON_SECOND, "2")

    assert (first.ask("GET", ON_FIRST), second.ask("GET", ON_SECOND)) == (b"1", b"2")
    assert len(await link.execute("TIME")) == 2
    assert link.is_connected
    assert list(link.primaries.values()) == [True, True]


async def test_many_commands_go_to_many_nodes_and_answer_in_order(link: RedisCluster) -> None:
    commands = [("SET", ON_FIRST, "x"), ("SET", ON_SECOND, "y"), ("LPUSH", ON_FIRST, "z")]
    reads = [("GET", ON_FIRST), ("GET", ON_SECOND)]

    written = await link.execute_many(commands)
    ordered = await link.execute_in_order([*commands, *reads])

    assert written[:2] == [b"OK", b"OK"]
    assert isinstance(written[2], RedisReplyError)
    assert ordered[3:] == [b"x", b"y"]


async def test_commands_in_order_wait_for_one_another(
    link: RedisCluster, nodes: ValkeyNodes
) -> None:
    # The first node answers late: a second command beside it would be answered before it.
    nodes.nodes[0].ask("CLIENT", "PAUSE", 300, "ALL")

    reading = asyncio.create_task(link.execute_in_order([("GET", ON_FIRST), ("INCR", ON_SECOND)]))
    await asyncio.sleep(0.1)

    assert nodes.nodes[1].ask("GET", ON_SECOND) is None
    assert await reading == [None, 1]


async def test_a_script_is_made_known_to_each_node(link: RedisCluster) -> None:
    keys = (ON_FIRST, ON_SECOND)

    assert [await link.run_script(COUNT, [key], [2]) for key in keys] == [2, 2]
    assert [await link.run_script(COUNT, [key], [2]) for key in keys] == [4, 4]


async def test_a_script_error_is_raised(link: RedisCluster) -> None:
    with pytest.raises(RedisReplyError, match="not an integer"):
        await link.run_script(COUNT, [ON_FIRST], ["many"])


async def test_a_slot_that_moved_is_followed_once_for_each_command(
    link: RedisCluster, moved: Move
) -> None:
    await link.execute("SET", ON_SECOND, "0")
    moved.begin()
    moved.carry(ON_SECOND)
    moved.end()

    answers = await asyncio.gather(*(link.run_script(COUNT, [ON_SECOND], [1]) for _ in range(50)))

    assert sorted(answers) == list(range(1, 51))
    assert moved.target.ask("GET", ON_SECOND) == b"50"
    assert list(link.primaries.values()) == [True, True]


async def test_a_slot_on_its_way_is_asked_for_where_it_goes(
    link: RedisCluster, moved: Move
) -> None:
    await link.execute("SET", ON_SECOND, "0")
    moved.begin()
    moved.carry(ON_SECOND)

    answers = await asyncio.gather(*(link.run_script(COUNT, [ON_SECOND], [1]) for _ in range(20)))

    assert sorted(answers) == list(range(1, 21))
    assert moved.target.ask("CLUSTER", "COUNTKEYSINSLOT", moved.slot) == 1


async def test_a_script_between_two_nodes_waits_until_its_keys_are_together(
    link: RedisCluster, moved: Move
) -> None:
    both = LuaScript("return redis.call('INCR', KEYS[1]) + redis.call('INCR', KEYS[2])")
    other = ON_SECOND + ":2"
    await link.run_script(both, [ON_SECOND, other], [])
    moved.begin()
    moved.carry(ON_SECOND)

    waiting = asyncio.create_task(link.run_script(both, [ON_SECOND, other], []))
    await asyncio.sleep(0.02)
    moved.carry(other)

    assert await waiting == 4


async def test_the_keys_of_a_move_that_stops_half_way_are_away_in_the_end(
    link: RedisCluster, moved: Move
) -> None:
    both = LuaScript("return redis.call('INCR', KEYS[1]) + redis.call('INCR', KEYS[2])")
    other = ON_SECOND + ":2"
    await link.run_script(both, [ON_SECOND, other], [])
    moved.begin()
    moved.carry(ON_SECOND)

    with pytest.raises(RedisAway):
        await link.run_script(both, [ON_SECOND, other], [], timeout_seconds=0.2)


async def test_a_node_that_dies_takes_only_its_own_slots_with_it(nodes: ValkeyNodes) -> None:
    connected: list[str] = []
    link = RedisCluster(
        parse_cluster_url(nodes.url), timeout_seconds=5, on_connect=connected.append
    )
    await link.start()
    dead: Node = nodes.nodes[1]
    for node in nodes.nodes:
        node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
    dead.kill()

    async def is_refused() -> bool:
        try:
            await link.execute("GET", ON_SECOND)
        except RedisAway:
            return True
        return False

    assert await is_refused()
    assert await link.execute("SET", ON_FIRST, "1") == b"OK"
    assert link.is_connected

    dead.start()
    dead.wait()
    await until_true(lambda: list(link.primaries.values()) == [True, True])
    # It was away long enough for its neighbour to call it failed, so both have to agree again.
    nodes.wait_until_whole()
    assert await link.execute("GET", ON_SECOND) is None
    assert len(connected) == 3
    await link.stop()


async def test_a_link_starts_while_nobody_is_there() -> None:
    link = RedisCluster(parse_cluster_url("redis+cluster://127.0.0.1:1,127.0.0.1:2"))

    await link.start()

    assert not link.is_connected
    with pytest.raises(RedisAway):
        await link.execute("GET", "a")
    with pytest.raises(RedisAway):
        await link.execute("TIME")
    await link.stop()


async def test_stopping_fails_what_is_pending(link: RedisCluster, nodes: ValkeyNodes) -> None:
    nodes.nodes[0].ask("CLIENT", "PAUSE", 300, "ALL")
    pending = link.execute("GET", ON_FIRST)

    await link.stop()

    with pytest.raises(RedisAway):
        await pending


def test_a_url_decides_what_the_link_is() -> None:
    assert isinstance(make_link("redis+cluster://a:1"), RedisCluster)
    assert isinstance(make_link("redis://a:1"), RedisPipe)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("MOVED 12 h:1", Redirection(slot=12, node=("h", 1))),
        ("MOVED 12 fd00::1:7", Redirection(slot=12, node=("fd00::1", 7))),
        ("ASK 12 h:1", Redirection(slot=12, node=("h", 1), is_asking=True)),
        ("MOVED 12 :1", Redirection(slot=-1, node=None)),
        ("TRYAGAIN Multiple keys request during rehashing", Redirection(slot=-1, node=None)),
        ("CLUSTERDOWN The cluster is down", None),
        ("MOVED somewhere", None),
    ],
)
def test_a_redirection_is_read(text: str, told: Redirection | None) -> None:
    assert redirection_of(RedisReplyError(text)) == told


async def until_true(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.01)
