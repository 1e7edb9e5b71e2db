"""Idempotency-Key on POSTs: the same request twice is answered twice and charged once.

Scope: the workspace of the API key. Kept for a day in Redis, in the tenant's shard, with the JSON
answer as the client got it, up to a bound. A stream is charged once too, and not kept: its key can
not be used again. What was refused was not charged, so its key is free again.

Whoever works on a key renews a short lease. Where its worker dies the next request asks what became
of the first one: was it charged, the key is spent; if not, the request is served as if it were new.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from typing import Any
from uuid import UUID

import msgspec

from proxy.api_errors import ApiError, overloaded
from proxy.asgi import Headers, Message, Send
from proxy.limiter.scripts import ONCE
from proxy.metrics import METRICS
from proxy.redis_link import RedisLink
from proxy.redis_pipe import RedisAway, RedisReplyError
from proxy.responses import send_answer
from turnpike.kernel import clock, ids, keyspace

logger = logging.getLogger(__name__)

HEADER = b"idempotency-key"
REPLAYED = (b"idempotency-replayed", b"true")
KEY_LENGTH_MAX = 255
LEASE_MS = 15_000
KEPT_MS = 86_400_000
ANSWER_BYTES_MAX = 1024 * 1024
# Beyond so much an hour a tenant's answers are not kept: their keys cannot be used again.
BYTES_PER_HOUR_MAX = 16 * 1024 * 1024
# A tombstone tells what became of a request for an hour.
TOMBSTONE_MS = 3_000_000
HOUR_US = 3_600_000_000
TIMEOUT_SECONDS = 1.0

_KEPT_HEADERS = (
    b"content-type",
    b"request-id",
    b"x-request-id",
    b"anthropic-organization-id",
    b"anthropic-workspace-id",
)


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One request with a key."""

    key: bytes
    tenant: int
    workspace: int
    rid: str
    fingerprint: str

    @property
    def entry(self) -> str:
        """The key's place in Redis."""
        return keyspace.idempotent(self.tenant, self.workspace, sha256(self.key).hexdigest())


class Idempotency:
    """Serves requests that carry an Idempotency-Key."""

    def __init__(self, pipe: RedisLink, *, lease_ms: int = LEASE_MS) -> None:
        self._pipe = pipe
        self._lease_ms = lease_ms

    async def serve(
        self,
        claim: Claim,
        send: Send,
        run: Callable[[Send], Awaitable[None]],
        check: Callable[[], Awaitable[object]],
    ) -> None:
        """Run the request, or replay its answer once `check` has found that the key may ask.

        Raises ApiError: 400 for a key that came with another body, 409 for one that is in use or
        spent, 529 while Redis is away: without it nobody could promise anything.
        """
        if (
            not 0 < len(claim.key) <= KEY_LENGTH_MAX
            or not claim.key.decode("latin-1").isprintable()
        ):
            raise _invalid(f"Idempotency-Key: 1 to {KEY_LENGTH_MAX} printable characters")
        reply = await self._claim(claim)
        if reply[0] == b"done":
            await check()
            await _replay(reply, send)
            return
        METRICS.idempotent.labels("new").inc()
        recorder = _Recorder(send, lambda *answer: self._change(claim, *answer))
        async with self._renewed(claim):
            try:
                await run(recorder)
            except ApiError:
                await self._change(claim, "release")
                raise
            # A client that left its stream never sees the end of it.
            await recorder.end()

    async def _claim(self, claim: Claim) -> list[bytes]:
        """The reply that lets the request go on: new, or done. Raises ApiError."""
        dead = ""
        for _ in range(3):
            reply = await self._ask(
                claim, "claim", claim.fingerprint, self._lease_ms, KEPT_MS, dead
            )
            word = reply[0]
            if word in (b"new", b"done"):
                return reply
            if word == b"other":
                METRICS.idempotent.labels("other").inc()
                raise _invalid("Idempotency-Key: this key came before with another request")
            if word == b"running" or not await self._is_free(claim, reply[1].decode()):
                raise _running()
            dead = reply[1].decode()
        raise _running()

    async def _is_free(self, claim: Claim, rid: str) -> bool:
        """Whether a request whose worker died was not charged. Raises ApiError 409 where it was.

        False while nobody has settled it yet.
        """
        record = keyspace.record(claim.tenant, rid)
        state, hold, paid, rank = await self._pipe.execute(
            "HMGET", record, "st", "hold", "paid", "rank"
        )
        if state == b"open":
            return False
        if state is None:
            # Never admitted; or so long ago that its tombstone is gone, too.
            age_ms = clock.now_ms() - UUID(rid).int // 2**80
            is_paid = age_ms > TOMBSTONE_MS
        elif state == b"settled":
            is_paid = hold != b"0"
        else:
            is_paid = rank != b"0" and paid != b"0"
        if is_paid:
            raise _spent(rid, "its answer was cut off by a failure")
        return True

    @asynccontextmanager
    async def _renewed(self, claim: Claim) -> AsyncIterator[None]:
        task = asyncio.create_task(self._renew(claim), name="idempotency")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _renew(self, claim: Claim) -> None:
        while True:
            await asyncio.sleep(self._lease_ms / 3_000)
            await self._change(claim, "renew", self._lease_ms)

    async def _change(self, claim: Claim, *args: Any) -> None:
        """Tell Redis; what it does not take now ends with the lease, and the record decides."""
        try:
            await self._ask(claim, *args)
        except ApiError:
            METRICS.idempotent.labels("not_kept").inc()

    async def _ask(self, claim: Claim, op: str, *args: Any) -> list[Any]:
        hour = clock.now_us() // HOUR_US
        try:
            reply = await self._pipe.run_script(
                ONCE,
                [claim.entry, keyspace.idempotent_bytes(claim.tenant, hour)],
                ["", op, claim.rid, *args],
                timeout_seconds=TIMEOUT_SECONDS,
            )
        except (RedisAway, RedisReplyError) as error:
            logger.warning("idempotency.away", extra={"error": str(error)})
            raise overloaded(
                "A request with an Idempotency-Key cannot be served at the moment. Nothing was"
                " charged; try again shortly.",
                reason="away",
            ) from error
        return list(reply)


class _Recorder:
    """Stands in for `send`: an answer is kept before the client has all of it."""

    def __init__(self, send: Send, change: Callable[..., Awaitable[None]]) -> None:
        self._send = send
        self._change = change
        self._headers: Headers = []
        self._pieces: list[bytes] = []
        self._size = 0
        self._status = 0
        self._is_stream = False
        self._has_ended = False

    async def __call__(self, message: Message) -> None:
        """Send on."""
        if message["type"] == "http.response.start" and not self._status:
            self._status, self._headers = message["status"], message["headers"]
            kind = dict(self._headers).get(b"content-type", b"")
            self._is_stream = self._status == 200 and kind.startswith(b"text/event-stream")
            if self._is_stream:
                await self._change("stream")
        elif message["type"] == "http.response.body":
            self._keep(message.get("body", b""))
            if not message.get("more_body", False):
                await self.end()
        await self._send(message)

    async def end(self) -> None:
        """The answer is whole, or will never be: keep it, spend the key, or free it. Once."""
        if self._has_ended or not self._status:
            return
        self._has_ended = True
        if self._status >= 400:
            await self._change("release")
            return
        is_kept = not self._is_stream and self._size <= ANSWER_BYTES_MAX
        kept = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in self._headers
            if name in _KEPT_HEADERS or name.startswith(b"x-turnpike-")
        ]
        answer = (str(self._status), json.dumps(kept), b"".join(self._pieces))
        await self._change("finish", *(answer if is_kept else ("", "", b"")), BYTES_PER_HOUR_MAX)

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if not self._is_stream and self._size <= ANSWER_BYTES_MAX:
            self._pieces.append(piece)


def fingerprint_of(path: str, raw: bytes) -> str:
    """What tells whether two requests with one key are the same."""
    return sha256(path.encode() + b"\n" + raw).hexdigest()


async def _replay(reply: list[bytes], send: Send) -> None:
    _, rid, status, headers, body = reply
    if not status:
        raise _spent(rid.decode(), "its answer was a stream, or too large to keep")
    METRICS.idempotent.labels("replayed").inc()
    kept = [
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in json.loads(headers)
    ]
    await send_answer(send, int(status), [*kept, REPLAYED], body)


def _invalid(message: str) -> ApiError:
    return ApiError(400, "invalid_request_error", message, reason="idempotency")


def _running() -> ApiError:
    METRICS.idempotent.labels("running").inc()
    return ApiError(
        409,
        "conflict_error",
        "A request with this Idempotency-Key is being served. Try again shortly.",
        reason="idempotency",
        retry_after_seconds=1,
        should_retry=True,
    )


def _spent(rid: str, why: str) -> ApiError:
    METRICS.idempotent.labels("spent").inc()
    name = ids.public_id(ids.REQUEST, UUID(rid))
    return ApiError(
        409,
        "conflict_error",
        f"This Idempotency-Key is spent: {name} was charged, and {why}. Use another key.",
        reason="idempotency",
        should_retry=False,
    )
