"""Consumer: reads the shards' streams, posts what it reads, publishes, then acknowledges.

Deliver at least once, apply once. An entry leaves its stream only after its transaction has been
committed and published, so a crash at any point means that it is delivered again, to no effect
or whole. An entry that cannot be posted never holds up its neighbours.
"""

import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from django.db import InterfaceError, OperationalError

from billing.ingest.parsing import Unreadable, find_request_id, fingerprint_of, parse_event
from billing.services.letters import Letter
from billing.services.partitions import FORGOTTEN, ensure_partitions, is_forgotten
from billing.services.posting import publish_wallet
from billing.services.usage import Incoming, Mark, no_mark, post_usage
from turnpike.kernel import clock, ids, keyspace

logger = logging.getLogger(__name__)

BATCH_MAX = 500
CLAIM_IDLE_MS = 60_000
DELIVERIES_MAX = 5
NO_GROUP = "NOGROUP"
GROUP_EXISTS = "BUSYGROUP"
FIELD = keyspace.EVENT_FIELD.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of a stream."""

    stream_id: str
    body: bytes


def consumer_name() -> str:
    """This process's name in the consumer groups."""
    return f"{socket.gethostname()}-{os.getpid()}"


class Consumer:
    """One reader of all shards. `mark` is told where it stands; tests stop it there."""

    def __init__(
        self,
        client: "redis.Redis",
        *,
        name: str,
        claim_idle_ms: int = CLAIM_IDLE_MS,
        batch_max: int = BATCH_MAX,
        mark: Mark = no_mark,
    ) -> None:
        self._client = client
        self._name = name
        self._claim_idle_ms = claim_idle_ms
        self._batch_max = batch_max
        self._mark = mark
        self._interrupted: set[int] = set()

    def drain(self, *, until_seconds: float, keep_on: Callable[[], bool] = lambda: True) -> int:
        """Work on all shards until they are empty or the time (monotonic) has come.

        Returns how many entries left their streams. Raises what a lost connection raises; what was
        in hand then is read again by the next call.
        """
        done = 0
        while keep_on() and clock.monotonic_seconds() < until_seconds:
            handled = sum(self.turn(shard) for shard in self._shards_with_entries())
            if handled == 0:
                break
            done += handled
        return done

    def turn(self, shard: int) -> int:
        """One batch of a shard: what dead consumers left first, then what is new."""
        entries = self._read(shard)
        if not entries:
            return 0
        self._mark("read")
        self._interrupted.add(shard)
        handled = self._post(shard, entries)
        self._interrupted.discard(shard)
        return handled

    def _shards_with_entries(self) -> list[int]:
        pipeline = self._client.pipeline(transaction=False)
        for shard in range(keyspace.SHARDS):
            pipeline.xlen(keyspace.usage_stream(shard))
        return [shard for shard, length in enumerate(pipeline.execute()) if length]

    def _read(self, shard: int) -> list[Entry]:
        try:
            if shard in self._interrupted:
                again = self._read_group(shard, "0")
                if again:
                    return again
                # Somebody else has done it, or Redis lost it: nothing is in hand any more.
                self._interrupted.discard(shard)
            return self._claim(shard) or self._read_group(shard, ">")
        except redis.ResponseError as error:
            if NO_GROUP not in str(error):
                raise
        self._make_group(shard)
        return self._read_group(shard, ">")

    def _claim(self, shard: int) -> list[Entry]:
        claimed: Any = self._client.xautoclaim(
            keyspace.usage_stream(shard),
            keyspace.CONSUMER_GROUP,
            self._name,
            min_idle_time=self._claim_idle_ms,
            count=self._batch_max,
        )
        return _entries(claimed[1])

    def _read_group(self, shard: int, after: str) -> list[Entry]:
        stream = keyspace.usage_stream(shard)
        found: Any = self._client.xreadgroup(
            keyspace.CONSUMER_GROUP, self._name, {stream: after}, count=self._batch_max
        )
        return [entry for _, items in found or [] for entry in _entries(items)]

    def _make_group(self, shard: int) -> None:
        try:
            self._client.xgroup_create(
                keyspace.usage_stream(shard), keyspace.CONSUMER_GROUP, id="0", mkstream=True
            )
        except redis.ResponseError as error:
            if GROUP_EXISTS not in str(error):
                raise

    def _post(self, shard: int, entries: Sequence[Entry]) -> int:
        """Post entries together; where that fails, by halves, down to the one that is to blame."""
        events, letters = _parse_all(keyspace.usage_stream(shard), entries)
        try:
            ensure_partitions(item.request for item in events)
            posted = post_usage(events=events, letters=letters, mark=self._mark)
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the neighbours go on
            if len(entries) == 1:
                return self._bear(shard, entries[0], error)
            middle = len(entries) // 2
            return self._post(shard, entries[:middle]) + self._post(shard, entries[middle:])
        self._mark("committed")
        for tenant, ranks in posted.ranks.items():
            publish_wallet(tenant=tenant, posted=ranks)
        self._mark("published")
        self._acknowledge(shard, entries)
        self._mark("acked")
        if posted.letters:
            logger.error("ingest.dead_letters", extra={"shard": shard, "count": posted.letters})
        return len(entries)

    def _bear(self, shard: int, entry: Entry, error: Exception) -> int:
        """Leave a failing entry for another delivery, or bury it after the last one."""
        stream = keyspace.usage_stream(shard)
        pending: Any = self._client.xpending_range(
            stream, keyspace.CONSUMER_GROUP, min=entry.stream_id, max=entry.stream_id, count=1
        )
        deliveries = pending[0]["times_delivered"] if pending else DELIVERIES_MAX
        reason = f"{type(error).__name__}: {error}"
        logger.warning(
            "ingest.entry_failed",
            extra={"stream_id": entry.stream_id, "deliveries": deliveries, "reason": reason},
        )
        if deliveries < DELIVERIES_MAX:
            return 0
        post_usage(events=(), letters=[_letter(stream, entry, reason)])
        self._acknowledge(shard, [entry])
        return 1

    def _acknowledge(self, shard: int, entries: Sequence[Entry]) -> None:
        stream, stream_ids = keyspace.usage_stream(shard), [entry.stream_id for entry in entries]
        # Together: an entry that is acknowledged and not deleted would never be read again.
        pipeline = self._client.pipeline(transaction=True)
        pipeline.xack(stream, keyspace.CONSUMER_GROUP, *stream_ids)
        pipeline.xdel(stream, *stream_ids)
        pipeline.execute()


def _parse_all(stream: str, entries: Sequence[Entry]) -> tuple[list[Incoming], list[Letter]]:
    events, letters = [], []
    for entry in entries:
        try:
            event = parse_event(entry.body, stream=stream, stream_id=entry.stream_id)
        except Unreadable as error:
            letters.append(_letter(stream, entry, str(error)))
            continue
        if is_forgotten(clock.datetime_of_us(ids.uuid7_ms(event.request) * 1_000).date()):
            letters.append(_letter(stream, entry, FORGOTTEN))
        else:
            events.append(event)
    return events, letters


def _letter(stream: str, entry: Entry, error: str) -> Letter:
    return Letter(
        stream=stream,
        stream_id=entry.stream_id,
        body=entry.body,
        fingerprint=fingerprint_of(entry.body),
        request=find_request_id(entry.body),
        # PostgreSQL's text has no NUL, and a message may quote one.
        error=error.replace("\x00", ""),
    )


def _entries(items: Any) -> list[Entry]:
    """Entries as the client gives them; one that was deleted meanwhile has no fields."""
    return [
        Entry(
            stream_id=stream_id.decode(),
            body=fields[FIELD] if FIELD in fields else repr(fields).encode(),
        )
        for stream_id, fields in items
        if fields
    ]
