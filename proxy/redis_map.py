"""Who has which slot of a Redis Cluster, as its nodes tell it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.redis_pipe import RedisAway, RedisPipe, RedisReplyError
from turnpike.kernel.cluster_url import Node, parse_node
from turnpike.kernel.keyspace import SLOTS

ASKING = "ASKING"
MAP_SECONDS_MAX = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirection:
    """Where a node sends a command that it did not carry out; no node: the same one, later."""

    slot: int
    node: Node | None
    is_asking: bool = False


class ClusterMap:
    """The primary of each slot. What a single redirection says is written into it."""

    def __init__(self, ranges: Iterable[tuple[int, int, Node]] = (), nodes: Iterable[Node] = ()):
        self._owners: list[Node | None] = [None] * SLOTS
        self.nodes = tuple(dict.fromkeys(nodes))  # replicas too: they know the map as well
        for first, last, node in ranges:
            self._owners[first : last + 1] = [node] * (last + 1 - first)
        self.primaries = frozenset(node for node in self._owners if node is not None)
        self.is_whole = None not in self._owners

    def node_of(self, slot: int) -> Node | None:
        """The primary of a slot, if anybody is known to be."""
        return self._owners[slot]

    def move(self, slot: int, node: Node) -> None:
        """One slot has another primary now."""
        self._owners[slot] = node


async def read_map(pipe: RedisPipe, *, asked: Node) -> ClusterMap | None:
    """What a node knows; None where it cannot say, or knows of no slot."""
    try:
        reply = await pipe.execute("CLUSTER", "SLOTS", timeout_seconds=MAP_SECONDS_MAX)
    except (RedisAway, RedisReplyError):
        return None
    rows = [(row[0], row[1], [_node_of(item, asked) for item in row[2:]]) for row in reply]
    if not rows:
        return None
    return ClusterMap(
        ranges=[(first, last, nodes[0]) for first, last, nodes in rows],
        nodes=[node for _, _, nodes in rows for node in nodes],
    )


def redirection_of(reply: RedisReplyError) -> Redirection | None:
    """What ``MOVED``, ``ASK`` or ``TRYAGAIN`` says; None for any other error."""
    if reply.code == "TRYAGAIN":
        return Redirection(slot=-1, node=None)
    words = str(reply).split()
    if reply.code not in ("MOVED", "ASK") or len(words) != 3:
        return None
    node = parse_node(words[2])
    if not node[0]:  # it does not know that node's name: the map will, in a moment
        return Redirection(slot=-1, node=None)
    return Redirection(slot=int(words[1]), node=node, is_asking=reply.code == "ASK")


def _node_of(item: Sequence[Any], asked: Node) -> Node:
    """A node of the answer; one that does not know its own name has the one it was asked by."""
    name = (item[0] or b"").decode()
    return (asked[0] if name in ("", "?") else name, int(item[1]))
