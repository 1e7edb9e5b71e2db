"""RedisLink: what the data plane asks of its way to Redis, be it one server or a cluster."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from proxy.prepared_call import PreparedCall, Script
from proxy.redis_pipe import Argument, Command


class RedisLink(Protocol):
    """The worker's way to Redis: one server's, or a cluster's."""

    on_connect: Callable[[str], None] | None

    @property
    def is_connected(self) -> bool:
        """Whether a command sent now would leave."""

    async def start(self) -> None:
        """Try to connect, and go on trying in the background. Never fails: Redis may be away."""

    async def stop(self) -> None:
        """Close what is open; what is pending fails."""

    def execute(
        self, *command: Argument, timeout_seconds: float | None = None
    ) -> asyncio.Future[Any]:
        """Send a command; await the result for its reply. Raises RedisAway or RedisReplyError."""

    def call(
        self, call: PreparedCall, name: str, args: Sequence[bytes], timeout_seconds: float
    ) -> asyncio.Future[Any]:
        """Run a prepared script; await the result for its reply. Raises RedisAway.

        Or RedisReplyError: after NOSCRIPT nothing was done, and `run_script` helps.
        """

    async def execute_many(
        self, commands: Iterable[Command], *, timeout_seconds: float | None = None
    ) -> list[Any]:
        """Send commands together. Error replies are values in the list; RedisAway is raised."""

    async def execute_in_order(self, commands: Sequence[Command]) -> list[Any]:
        """The same, and no command is carried out before the ones that stand before it."""

    async def run_script(
        self,
        script: Script,
        keys: Sequence[Argument],
        args: Sequence[Argument],
        *,
        timeout_seconds: float | None = None,
    ) -> Any:
        """Run a script by its hash; a server that does not know it is given the source once."""
