"""The worker's way to a Redis Cluster: one pipelined connection to each primary.

A command goes to the primary of its first key's slot. What a node refuses because the slot has
moved was not carried out there, so it follows the redirection, a few times at most and within its
own time. What a lost connection leaves open is not repeated here: whether it was done is not known,
and the callers have their rules for that.

A primary that is new to this worker may have taken over from one that died, and may lack its last
moments. So every new connection is told to `on_connect`, as that of a single server is.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from proxy.prepared_call import PreparedCall, Script
from proxy.redis_link import RedisLink
from proxy.redis_map import ASKING, ClusterMap, Redirection, read_map, redirection_of
from proxy.redis_pipe import (
    UNKNOWN_SCRIPT,
    Argument,
    Command,
    RedisAway,
    RedisCannot,
    RedisPipe,
    RedisReplyError,
    replies_to,
)
from turnpike.kernel.cluster_url import ClusterUrl, Node, is_cluster_url, parse_cluster_url
from turnpike.kernel.keyspace import slot_of

logger = logging.getLogger(__name__)

REDIRECTIONS_MAX = 5
TRY_AGAIN_SECONDS = 0.01
# How often the map is read: while all is well, and while a part of it is missing.
MAP_SECONDS = 10.0
MAP_MISSING_SECONDS = 0.2
# A node that only moved a slot stays connected; one that stopped being a primary is left.
LEAVE_CODES = frozenset(("READONLY",))
KEY_AT = {"EVALSHA": 3, "EVAL": 3}
KEYLESS = frozenset(("TIME", "PING", "SCRIPT", "INFO", "CLIENT"))


def make_link(url: str, *, timeout_seconds: float = 0.05) -> RedisLink:
    """The link that a URL asks for: to one server, or to a cluster."""
    if is_cluster_url(url):
        return RedisCluster(parse_cluster_url(url), timeout_seconds=timeout_seconds)
    return RedisPipe(url, timeout_seconds=timeout_seconds)


class RedisCluster:
    """Commands and scripts over the primaries of a cluster, whose map mends itself."""

    def __init__(
        self,
        url: ClusterUrl,
        *,
        timeout_seconds: float = 0.05,
        on_connect: Callable[[str], None] | None = None,
    ) -> None:
        self.on_connect = on_connect
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._map = ClusterMap()
        self._pipes: dict[Node, RedisPipe] = {}
        self._opening: dict[Node, asyncio.Task[None]] = {}
        self._following: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._look_again = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def is_connected(self) -> bool:
        """Whether any primary is: the tenants of the others are refused, not all."""
        return any(pipe.is_connected for pipe in self._pipes.values())

    @property
    def primaries(self) -> Mapping[Node, bool]:
        """The primaries that are known, and whether each is connected."""
        return {node: pipe.is_connected for node, pipe in self._pipes.items()}

    async def start(self) -> None:
        """Read the map and connect; what cannot be reached now is tried in the background."""
        assert self._keeper is None
        self._loop = asyncio.get_running_loop()
        await self._read_map()
        self._keeper = self._loop.create_task(self._keep_map())

    async def stop(self) -> None:
        """Close all connections; what is pending fails."""
        tasks = [*self._following, *self._opening.values()]
        if self._keeper is not None:
            tasks.append(self._keeper)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        pipes, self._pipes = self._pipes, {}
        await asyncio.gather(*(pipe.stop() for pipe in pipes.values()), *self._closing)
        self._keeper = None

    def execute(
        self, *command: Argument, timeout_seconds: float | None = None
    ) -> asyncio.Future[Any]:
        """Send a command; await the result for its reply. Raises RedisAway or RedisReplyError."""
        pipe = self._pipe_for(command)
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        try:
            sent = pipe.execute(*command, timeout_seconds=seconds)
        except RedisAway:
            self._look_again.set()
            raise
        answer: asyncio.Future[Any] = self._loop.create_future()
        deadline = self._loop.time() + seconds
        sent.add_done_callback(partial(self._pass_on, answer, command, deadline))
        return answer

    def call(
        self, call: PreparedCall, name: str, args: Sequence[bytes], timeout_seconds: float
    ) -> asyncio.Future[Any]:
        """Run a prepared script; await the result for its reply. Raises RedisAway.

        Or RedisReplyError: after NOSCRIPT nothing was done, and `run_script` helps. Sent word by
        word, since a call may have to follow its keys to another node.
        """
        keys = call.keys(name)
        command: Command = ("EVALSHA", call.script.sha, len(keys), *keys, *args)
        return self.execute(*command, timeout_seconds=timeout_seconds)

    async def execute_many(
        self, commands: Iterable[Command], *, timeout_seconds: float | None = None
    ) -> list[Any]:
        """Send commands, one write a node. Error replies are values; RedisAway is raised."""
        return await replies_to(commands, self.execute, timeout_seconds=timeout_seconds)

    async def execute_in_order(self, commands: Sequence[Command]) -> list[Any]:
        """The same, each command after the reply to the one before: nodes keep no common order."""
        return [reply for command in commands for reply in await self.execute_many([command])]

    async def run_script(
        self,
        script: Script,
        keys: Sequence[Argument],
        args: Sequence[Argument],
        *,
        timeout_seconds: float | None = None,
    ) -> Any:
        """Run a script by its hash; a node that does not know it is sent the source."""
        command = ("EVALSHA", script.sha, len(keys), *keys, *args)
        try:
            return await self.execute(*command, timeout_seconds=timeout_seconds)
        except RedisReplyError as error:
            if error.code != UNKNOWN_SCRIPT:
                raise
        whole = ("EVAL", script.source, *command[2:])
        return await self.execute(*whole, timeout_seconds=timeout_seconds)

    def _pipe_for(self, command: Command) -> RedisPipe:
        name = command[0]
        if name in KEYLESS:
            for pipe in self._pipes.values():
                if pipe.is_connected:
                    return pipe
            raise self._away("No node of the Redis Cluster is connected.")
        node = self._map.node_of(_slot_of_key(command[KEY_AT.get(str(name), 1)]))
        found = None if node is None else self._pipes.get(node)
        if found is None:
            raise self._away("Nobody in the Redis Cluster has the slot.")
        return found

    def _away(self, message: str) -> RedisAway:
        self._look_again.set()
        return RedisAway(message)

    def _pass_on(
        self,
        answer: asyncio.Future[Any],
        command: Command,
        deadline: float,
        sent: asyncio.Future[Any],
    ) -> None:
        if sent.cancelled():
            answer.cancel()
            return
        error = sent.exception()
        if answer.done():
            return
        if error is None:
            answer.set_result(sent.result())
        elif isinstance(error, RedisCannot):
            self._redirect(answer, command, deadline, error)
        else:
            if isinstance(error, RedisAway):
                self._look_again.set()
            answer.set_exception(error)

    def _redirect(
        self,
        answer: asyncio.Future[Any],
        command: Command,
        deadline: float,
        error: RedisCannot,
    ) -> None:
        self._look_again.set()
        if redirection_of(error.reply) is None:
            answer.set_exception(error)
            return
        task = self._loop.create_task(self._follow(answer, command, deadline, error))
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def _follow(
        self,
        answer: asyncio.Future[Any],
        command: Command,
        deadline: float,
        error: RedisCannot,
    ) -> None:
        try:
            reply = await self._send_where_told(command, deadline, error)
        except (RedisAway, RedisReplyError) as failure:
            if not answer.done():
                answer.set_exception(failure)
        except asyncio.CancelledError:
            if not answer.done():
                answer.set_exception(RedisAway("The link to Redis is closed."))
            raise
        else:
            if not answer.done():
                answer.set_result(reply)

    async def _send_where_told(self, command: Command, deadline: float, error: RedisCannot) -> Any:
        for _ in range(REDIRECTIONS_MAX):
            told = redirection_of(error.reply)
            left = deadline - self._loop.time()
            if told is None or left <= 0:
                break
            try:
                pipe = await self._pipe_told(command, told, seconds=left)
                left = max(0.001, deadline - self._loop.time())
                if told.is_asking:
                    asked = pipe.execute(ASKING, timeout_seconds=left)
                    asked.add_done_callback(_look_at)
                return await pipe.execute(*command, timeout_seconds=left)
            except RedisCannot as again:
                error = again
        raise error

    async def _pipe_told(self, command: Command, told: Redirection, *, seconds: float) -> RedisPipe:
        if told.node is None:
            await asyncio.sleep(min(TRY_AGAIN_SECONDS, seconds))
            return self._pipe_for(command)
        if not told.is_asking:
            self._map.move(told.slot, told.node)
        node = told.node
        self._open(node)
        opening = self._opening.get(node)
        if opening is not None:
            await asyncio.wait([opening], timeout=seconds)
        return self._pipes[node]

    def _open(self, node: Node) -> None:
        """Connect to a node, in the background, where that is not done yet."""
        if node in self._pipes:
            return
        pipe = self._pipes[node] = RedisPipe(
            self._url.node_url(node),
            timeout_seconds=self._timeout_seconds,
            leave_codes=LEAVE_CODES,
            on_connect=self._note_connect,
        )
        task = self._opening[node] = self._loop.create_task(pipe.start())
        task.add_done_callback(lambda _: self._opening.pop(node, None))

    def _note_connect(self, run_id: str) -> None:
        if self.on_connect is not None:
            self.on_connect(run_id)

    async def _keep_map(self) -> None:
        while True:
            is_whole = self._map.is_whole and all(p.is_connected for p in self._pipes.values())
            seconds = MAP_SECONDS if is_whole else MAP_MISSING_SECONDS
            try:
                async with asyncio.timeout(seconds):
                    await self._look_again.wait()
                # Many calls fail at once: the map is read once for all of them.
                await asyncio.sleep(TRY_AGAIN_SECONDS)
            except TimeoutError:
                pass
            self._look_again.clear()
            try:
                await self._read_map()
            except Exception:
                logger.exception("redis.map_failed")

    async def _read_map(self) -> None:
        """Ask the nodes in turn, the connected ones first, and keep to the first good answer."""
        connected = {node: pipe for node, pipe in self._pipes.items() if pipe.is_connected}
        for node, pipe in connected.items():
            if self._take(await read_map(pipe, asked=node)):
                return
        for node in dict.fromkeys((*self._url.seeds, *self._map.nodes)):
            if node not in connected and self._take(await self._ask_stranger(node)):
                await asyncio.gather(*self._opening.values())
                return

    async def _ask_stranger(self, node: Node) -> ClusterMap | None:
        pipe = RedisPipe(self._url.node_url(node), connect_timeout_seconds=0.5)
        await pipe.start()
        try:
            return await read_map(pipe, asked=node)
        finally:
            await pipe.stop()

    def _take(self, found: ClusterMap | None) -> bool:
        if found is None:
            return False
        self._map = found
        primaries = found.primaries
        for node in primaries:
            self._open(node)
        for node in [node for node in self._pipes if node not in primaries]:
            logger.warning("redis.left", extra={"node": f"{node[0]}:{node[1]}"})
            task = self._loop.create_task(self._pipes.pop(node).stop())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        return True


@lru_cache(maxsize=10_000)
def _slot_of_key(key: Argument) -> int:
    return slot_of(key if isinstance(key, bytes) else str(key).encode())


def _look_at(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
