"""The whole installation over a Valkey Cluster; broker and cache are on a server of their own."""

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.cluster import Cluster
from tests.support.valkey_nodes import Node, ValkeyNodes


class ShardedCluster(Cluster):
    """What breaks "valkey" in a cluster breaks one of its primaries, each in its turn."""

    def __init__(self, folder: Path, *, workers: int = 2, extra: Mapping[str, str] | None = None):
        home = folder / "nodes"
        home.mkdir()
        home.chmod(0o711)
        self.nodes = ValkeyNodes(home, primaries=3, has_replicas=True)
        self.failovers = 0
        self._dead: Node | None = None
        self._turn = 0
        places = {"REDIS_URL": self.nodes.url, **(extra or {})}
        super().__init__(folder, workers=workers, extra=places)

    def start(self, *, tenants: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Form the cluster, then start everything else as ever."""
        self.nodes.form()
        return super().start(tenants=tenants)

    def stop(self) -> None:
        """Stop everything, the nodes last."""
        super().stop()
        self.nodes.kill_all()

    def start_valkey(self) -> None:
        """Bring the dead node back; the first time, start the server of broker and cache.

        Called by the thread that lives longest: a server ends with the one that started it.
        """
        if self._dead is None:
            super().start_valkey()
            return
        dead, self._dead = self._dead, None
        self.failovers += self.nodes.is_replaced(dead)
        dead.start()

    def is_running(self, name: str) -> bool:
        """Whether a child lives; "valkey" means every node."""
        return super().is_running(name) and not (name == "valkey" and self._dead is not None)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Kill a child; of the cluster the next primary, every other time until it is replaced."""
        if name != "valkey":
            super().kill(name, number)
            return
        primaries = self.nodes.primaries()
        self._dead = primaries[self._turn % len(primaries)]
        self._turn += 1
        self._dead.kill()
        if self._turn % 2:
            self.nodes.wait_until_replaced(self._dead)

    def wipe_valkey(self) -> None:
        """The dead primary loses its data."""
        assert self._dead is not None
        self._dead.wipe()

    def cut_valkey_log(self, byte_count: int) -> int:
        """The dead primary loses the end of its log."""
        assert self._dead is not None
        return self._dead.cut_log(byte_count)

    def is_valkey_ready(self) -> bool:
        """Whether all of the cluster answers and is whole again, and its neighbour answers."""
        return self.nodes.is_whole() and super().is_valkey_ready()
