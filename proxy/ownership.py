"""Which tenant an upstream's object belongs to: to the one whose answer named it first.

Redis is the truth of this (docs/adr/0009-ownership.md). An object that is lost there, or whose time
is over, belongs to nobody and is not found; its owner makes a new one. Every name is bound to the
upstream that gave it, so a request that names one goes there and nowhere else.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from proxy.api_errors import ApiError
from proxy.metrics import METRICS
from proxy.redis_link import RedisLink
from proxy.redis_pipe import Argument, RedisAway
from proxy.sse import EventParser, StreamTooLarge
from proxy.upstreams.client import UpstreamResponse
from turnpike.contracts.features import (
    CONTAINER,
    FILE,
    MESSAGE,
    OBJECT_ID_LENGTH_MAX,
    objects_of,
)
from turnpike.kernel import clock, keyspace

logger = logging.getLogger(__name__)

Objects = Iterable[tuple[str, str]]
Note = Callable[[Objects], Awaitable[None]]

DAY_SECONDS = 86_400
KEPT_SECONDS = 30 * DAY_SECONDS
NAMED_PER_ANSWER_MAX = 200
NAMED_PER_DAY_MAX = 10_000
# Where the tenant's id stands in a body, for the message.
_PLACES = {FILE: "file_id", CONTAINER: "container", MESSAGE: "previous_message_id"}

_decode = msgspec.json.decode


class Owners:
    """Remembers who owns what, in Redis."""

    def __init__(self, pipe: RedisLink) -> None:
        self._pipe = pipe

    async def find_upstream(self, tenant: int, objects: Objects) -> int:
        """The upstream where all of these objects of a tenant live.

        Raises ApiError 404 for the first that is not the tenant's; RedisAway while nobody knows.
        """
        asked = sorted(objects)
        for kind, ident in asked:
            if not 0 < len(ident) <= OBJECT_ID_LENGTH_MAX:
                raise not_found(kind, ident)
        commands = [
            ("GETEX", keyspace.owned_object(tenant, kind, ident), "EX", KEPT_SECONDS)
            for kind, ident in asked
        ]
        upstreams: set[int] = set()
        for (kind, ident), reply in zip(
            asked, await self._pipe.execute_many(commands), strict=True
        ):
            if isinstance(reply, Exception):
                raise RedisAway(str(reply)) from reply
            upstreams.add(-1 if reply is None else int(reply))
            if reply is None or len(upstreams) > 1:
                raise not_found(kind, ident)
        return upstreams.pop()

    async def note(self, tenant: int, upstream: int, objects: Objects) -> None:
        """The tenant's answer named these: they are its own from now on, for 30 days.

        What Redis does not take is not found later; so is what exceeds the day's bound.
        """
        named = [item for item in dict.fromkeys(objects) if len(item[1]) <= OBJECT_ID_LENGTH_MAX]
        named = named[:NAMED_PER_ANSWER_MAX]
        counter = keyspace.owned_count(tenant, clock.now_us() // (DAY_SECONDS * 1_000_000))
        try:
            count = await self._pipe.execute("INCRBY", counter, len(named))
            commands: list[list[Argument]] = [["EXPIRE", counter, DAY_SECONDS]]
            if int(count) <= NAMED_PER_DAY_MAX:
                # Who was named first stays the owner: an answer that repeats a name takes nothing.
                commands += [
                    [
                        "SET",
                        keyspace.owned_object(tenant, kind, ident),
                        upstream,
                        "EX",
                        KEPT_SECONDS,
                    ]
                    for kind, ident in named
                ]
            else:
                METRICS.objects_not_noted.inc(len(named))
            await self._pipe.execute_many(commands)
        except RedisAway:
            METRICS.objects_not_noted.inc(len(named))
            logger.warning("objects.not_noted", extra={"count": len(named)})


class NamingAnswer(UpstreamResponse):
    """An answer that may name objects: they are noted before the client reads of them."""

    __slots__ = ("_inner", "_is_readable", "_note", "_parser")

    def __init__(self, inner: UpstreamResponse, note: Note) -> None:
        # Not the parent's: whatever touches the connection is asked of the answer inside.
        self.status = inner.status
        self.headers = inner.headers
        self.is_reused = inner.is_reused
        self._inner = inner
        self._note = note
        self._parser = EventParser()
        self._is_readable = True

    async def read_chunk(self, timeout_seconds: float) -> bytes:
        """The next bytes, once what they name is noted."""
        chunk = await self._inner.read_chunk(timeout_seconds)
        if chunk and self._is_readable:
            await self._read(chunk)
        return chunk

    def set_tap(self, tap: Callable[[bytes], bool] | None) -> None:
        """No tap: what an answer names is noted before anybody may read of it."""

    def take_whole(self, limit_bytes: int) -> bytes | None:
        """Nothing at once: what it names is noted first."""
        return None

    async def read_all(self, limit_bytes: int, timeout_seconds: float) -> bytes:
        """The whole answer, once what it names is noted."""
        payload = await self._inner.read_all(limit_bytes, timeout_seconds)
        if self.status < 400:
            await self._note_all([payload])
        return payload

    def close(self) -> None:
        """Done with it."""
        self._inner.close()

    async def _read(self, chunk: bytes) -> None:
        try:
            events = self._parser.feed(chunk)
        except StreamTooLarge:
            self._is_readable = False  # the meter says so, and ends the stream
            return
        await self._note_all(
            [event.data for event in events if event.name != b"content_block_delta"]
        )

    async def _note_all(self, documents: Iterable[bytes]) -> None:
        found: list[tuple[str, str]] = []
        for document in documents:
            try:
                found += objects_of(_decode(document))
            except (msgspec.MsgspecError, RecursionError, UnicodeError):
                continue
        if found:
            await self._note(found)


def not_found(kind: str, ident: str) -> ApiError:
    """404: it does not exist, or is another tenant's; nobody is told which."""
    return ApiError(
        404,
        "not_found_error",
        f"{_PLACES[kind]}: {ident[:OBJECT_ID_LENGTH_MAX]} was not found",
        reason="ownership",
    )
