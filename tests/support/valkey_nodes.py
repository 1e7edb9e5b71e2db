"""A Valkey Cluster on loopback, three primaries and three replicas, each of which may be killed.

Made of the embedded servers, and formed over their own protocol: no other program is needed.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from tests.support import valkey_data
from tests.support.ports import free_port
from tests.support.running import state_directory
from turnpike.embedded import engines, process, valkey
from turnpike.embedded.places import find_places
from turnpike.kernel.keyspace import SLOTS

PRIMARIES = 3
NODE_TIMEOUT_MS = 1_000
READY_SECONDS_MAX = 30.0
HOST = "127.0.0.1"


class Node:
    """One server of the cluster."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        folder.chmod(0o711)
        self.port = free_port()
        self._bus_port = free_port()
        self._log = folder / "log"
        self._recipe: process.Recipe | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._server = valkey.EmbeddedValkey(
            engine=engines.find_valkey(),
            places=find_places(folder),
            settings=(
                f"port={self.port}",
                f"bind={HOST}",
                f"cluster-port={self._bus_port}",
                "cluster-enabled=yes",
                f"cluster-node-timeout={NODE_TIMEOUT_MS}",
                "cluster-config-file=nodes.conf",
                "cluster-replica-validity-factor=0",
                "repl-diskless-sync-delay=0",
            ),
        )

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start it over whatever data it has; `wait` tells when it answers."""
        self._server.prepare()
        self._recipe = process.Recipe(
            name="valkey",
            command=self._server.command(),
            environment={"PATH": os.defpath},
            user=self._server.places.user,
        )
        with self._log.open("ab") as log:
            self._child = process.spawn(self._recipe, output=log)

    def wait(self) -> None:
        """Wait until it answers."""
        is_ready = self._server.is_ready
        assert process.wait_until(is_ready, seconds_max=READY_SECONDS_MAX), "a node did not start"

    def meet(self, other: "Node") -> None:
        """Make this one and another known to each other."""
        self.ask("CLUSTER", "MEET", HOST, other.port, other._bus_port)

    def log(self, *, lines: int = 20) -> str:
        """The end of what it wrote."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def ask(self, *command: Any) -> Any:
        """What it answers to a command of one's own."""
        with redis.Redis(host=HOST, port=self.port, socket_timeout=20) as client:
            return client.execute_command(*command)

    def kill(self) -> None:
        """End it as a crash would."""
        if self._child is not None:
            self._child.send_signal(signal.SIGCONT)
            self._child.kill()
            self._child.wait(READY_SECONDS_MAX)

    def wipe(self) -> None:
        """Delete its data while it is dead."""
        assert not self.is_running
        valkey_data.wipe(self._server)

    def cut_log(self, byte_count: int) -> int:
        """Cut bytes off the end of its log while it is dead."""
        assert not self.is_running
        return valkey_data.cut_log(self._server, byte_count)

    def is_primary(self) -> bool:
        """Whether it believes that it is one."""
        return bool(self.ask("ROLE")[0] == b"master")


class ValkeyNodes:
    """The nodes, primaries first, and what a test does to them."""

    def __init__(self, folder: Path, *, primaries: int, has_replicas: bool) -> None:
        self._primaries = primaries
        self._replicas = primaries if has_replicas else 0
        count = primaries + self._replicas
        self.nodes = [Node(folder / f"n{number}") for number in range(count)]

    @property
    def url(self) -> str:
        """The cluster's URL; two seeds, so that one of them may be dead."""
        return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in self.nodes[:2])

    def form(self) -> None:
        """Start them all, deal out the slots, and give each primary a replica."""
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.wait()
        first = self.nodes[0]
        for number, node in enumerate(self.nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for other in self.nodes[1:]:
            first.meet(other)
        step = -(-SLOTS // self._primaries)
        for number, node in enumerate(self.nodes[: self._primaries]):
            last = min(SLOTS, (number + 1) * step) - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", number * step, last)
        for number, node in enumerate(self.nodes[self._primaries :]):
            self._replicate(node, self.nodes[number])
        self.wait_until_whole()

    def primaries(self) -> list[Node]:
        """The primaries that live now."""
        return [node for node in self.nodes if node.is_running and node.is_primary()]

    def primary_of(self, key: str) -> Node:
        """The primary that has a key, as a living node knows it."""
        living = next(node for node in self.nodes if node.is_running)
        slot = living.ask("CLUSTER", "KEYSLOT", key)
        ports = {first: row[0][1] for first, last, *row in self._slots() if first <= slot <= last}
        return next(node for node in self.nodes if node.port in ports.values())

    def is_replaced(self, dead: Node) -> bool:
        """Whether a replica has taken over from a primary that was killed, as all know."""
        with contextlib.suppress(redis.RedisError):
            return all(row[2][1] != dead.port for row in self._slots(everyone=True))
        return False

    def wait_until_replaced(self, dead: Node) -> None:
        """Wait until a replica has taken over from a primary that was killed."""
        is_replaced = process.wait_until(
            lambda: self.is_replaced(dead), seconds_max=READY_SECONDS_MAX
        )
        assert is_replaced, "nobody took over"

    def wait_until_whole(self) -> None:
        """Wait until every slot is served and every replica follows."""
        is_whole = process.wait_until(self.is_whole, seconds_max=READY_SECONDS_MAX)
        assert is_whole, "the cluster did not come together"

    def kill_all(self) -> None:
        """End what still runs."""
        for node in self.nodes:
            node.kill()

    def _slots(self, *, everyone: bool = False) -> list[Any]:
        living = [node for node in self.nodes if node.is_running]
        asked = living if everyone else living[:1]
        return [row for node in asked for row in node.ask("CLUSTER", "SLOTS")]

    def _replicate(self, replica: Node, primary: Node) -> None:
        name = primary.ask("CLUSTER", "MYID")

        def is_following() -> bool:
            with contextlib.suppress(redis.ResponseError):
                replica.ask("CLUSTER", "REPLICATE", name)
                return True
            return False

        assert process.wait_until(is_following, seconds_max=READY_SECONDS_MAX)

    def is_whole(self) -> bool:
        """Whether every slot is served and every replica follows."""
        living = [node for node in self.nodes if node.is_running]
        try:
            infos = [node.ask("CLUSTER", "INFO") for node in living]
            following = sum(_is_following(node) for node in living)
        except redis.RedisError:
            return False
        return following >= self._replicas and all(_is_ok(info) for info in infos)


def _is_following(node: Node) -> bool:
    role = node.ask("ROLE")
    return bool(role[0] == b"slave" and role[3] == b"connected")


def _is_ok(info: Any) -> bool:
    if isinstance(info, dict):
        return bool(info.get("cluster_state") == "ok")
    return b"cluster_state:ok" in info


@contextlib.contextmanager
def running_nodes(
    *, primaries: int = PRIMARIES, has_replicas: bool = True
) -> Iterator[ValkeyNodes]:
    """A whole cluster; everything is gone afterwards."""
    with state_directory() as folder:
        cluster = ValkeyNodes(folder, primaries=primaries, has_replicas=has_replicas)
        try:
            cluster.form()
            yield cluster
        finally:
            cluster.kill_all()
