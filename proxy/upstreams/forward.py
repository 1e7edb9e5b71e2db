"""Sends one attempt to one upstream, and says what may be done when it fails.

Whoever pays decides what a failure means: as long as nothing was billed, another try is free. What
an upstream says about our own credentials or quota is never shown to a tenant.
"""

import logging
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import urlsplit

import msgspec

from proxy.api_errors import ApiError, overloaded
from proxy.known_head import HeadMemo
from proxy.metrics import METRICS
from proxy.responses import upstream_request_headers
from proxy.upstreams import client as wire
from proxy.upstreams.selection import Hop
from turnpike.contracts import usage as words
from turnpike.contracts.snapshots import (
    UPSTREAM_OPENAI,
    UpstreamSnapshot,
    credential_place,
)
from turnpike.kernel import clock, sealing

logger = logging.getLogger(__name__)

CHAT_PATH = b"/v1/chat/completions"
ERROR_BYTES_MAX = 1024 * 1024
ERROR_SECONDS = 10.0
HEADERS_SECONDS_MIN = 0.05
CHECK_PATH = b"/v1/models?limit=1"
CHECK_SECONDS = 5.0
RETRY_AFTER_MAX = 60
# What an OpenAI-compatible upstream is told of a client; the rest speaks of Anthropic's API.
CHAT_HEADERS = frozenset((b"accept", b"accept-encoding", b"content-type", b"user-agent"))
CREDENTIALS_MAX = 1_000
# What an upstream says of us, not of the tenant: bad credentials, no credit, no quota, no capacity.
OURS = frozenset((401, 402, 403, 407, 408, 409, 425, 429))
COOLING = frozenset((429, 503, 529))


class Blame(Enum):
    """What a failed attempt says something about."""

    NOBODY = "nobody"  # this request alone
    CREDENTIAL = "credential"
    UPSTREAM = "upstream"


class AttemptFailed(Exception):
    """One try failed before anything was billed to anybody's knowledge.

    `is_repeatable`: the same upstream may be tried once more at once; `may_try_next`: another may.
    `cooling_seconds`: so long the credential was told to wait.
    """

    def __init__(
        self,
        error: ApiError,
        *,
        outcome: str,
        may_try_next: bool = True,
        is_repeatable: bool = False,
        upstream_request_id: str | None = None,
        blame: Blame = Blame.NOBODY,
        cooling_seconds: int = 0,
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.outcome = outcome
        self.may_try_next = may_try_next
        self.is_repeatable = is_repeatable
        self.upstream_request_id = upstream_request_id
        self.blame = blame
        self.cooling_seconds = cooling_seconds


class Call(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is sent: the same for each attempt but for the upstream's own name of the model."""

    path: bytes
    headers: Mapping[bytes, bytes]
    request_id: str
    is_stream: bool
    begun_at: float = msgspec.field(default_factory=clock.monotonic_seconds)
    memo: HeadMemo | None = None

    def __repr__(self) -> str:
        """Without the headers: they hold a key."""
        return f"Call({self.request_id})"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Peer:
    target: wire.Target
    path_prefix: bytes
    secrets: Mapping[int | None, bytes] = field(repr=False)
    is_chat: bool

    def secret_of(self, credential: int | None) -> bytes:
        """The secret of a credential; where it does not open, another's, else none."""
        found = self.secrets.get(credential)
        return next(iter(self.secrets.values()), b"") if found is None else found


class Forwarder:
    """Opens attempts; knows addresses and credentials, and nothing of tenants or money."""

    def __init__(
        self,
        client: wire.UpstreamClient,
        *,
        master_keys: Mapping[str, bytes],
        simulator_control: bool,
    ) -> None:
        self._client = client
        self._master_keys = master_keys
        self._simulator_control = simulator_control
        self._peers: dict[int, tuple[UpstreamSnapshot, _Peer]] = {}

    async def open(self, hop: Hop, call: Call, body: bytes) -> wire.UpstreamResponse:
        """Send the attempt and wait for its status line.

        Returns an answer that is the tenant's business: a success, or a refusal of what was asked.
        Raises AttemptFailed for all else.
        """
        try:
            response = await self.send(hop, call, body)
        except wire.UpstreamError as error:
            raise failure_of(error) from error
        if response.status >= 400:
            await self.refuse_ours(hop.upstream, response)
        return response

    def send(self, hop: Hop, call: Call, body: bytes) -> Awaitable[wire.UpstreamResponse]:
        """The same for a caller that looks at the status itself. Awaited, raises UpstreamError."""
        upstream = hop.upstream
        peer = self._peer(upstream)
        start = self._start(hop, peer, call)
        if upstream.send_request_id:
            ours = start, call.request_id.encode(), len(body)
            head = b"%bx-turnpike-request-id: %b\r\ncontent-length: %d\r\n\r\n" % ours
        else:
            head = b"%bcontent-length: %d\r\n\r\n" % (start, len(body))
        wait = (
            upstream.silence_timeout_seconds if call.is_stream else upstream.answer_timeout_seconds
        )
        # Later attempts have what the earlier ones left: the client waits no longer for them.
        left = wait - (clock.monotonic_seconds() - call.begun_at)
        return self._client.send_from(
            peer.target,
            [head, body],
            upstream.connect_timeout_seconds,
            left if left > HEADERS_SECONDS_MIN else HEADERS_SECONDS_MIN,
        )

    async def refuse_ours(
        self, upstream: UpstreamSnapshot, response: wire.UpstreamResponse
    ) -> None:
        """Raise AttemptFailed for a refusal that says something of us, and not of the request."""
        if response.status in OURS or response.status >= 500:
            raise await self._refused(upstream, response)

    async def check(self, upstream: UpstreamSnapshot) -> bool:
        """Whether an upstream answers at all: a question that costs nothing."""
        peer = self._peer(upstream)
        headers = [(b"anthropic-version", b"2023-06-01")]
        secret = peer.secret_of(None)
        if secret and peer.is_chat:
            headers = [(b"authorization", b"Bearer " + secret)]
        elif secret:
            headers.append((b"x-api-key", secret))
        try:
            response = await self._client.send(
                peer.target,
                b"GET",
                peer.path_prefix + CHECK_PATH,
                headers,
                b"",
                connect_timeout_seconds=min(upstream.connect_timeout_seconds, CHECK_SECONDS),
                headers_timeout_seconds=CHECK_SECONDS,
            )
            await response.read_all(ERROR_BYTES_MAX, CHECK_SECONDS)
        except wire.UpstreamError:
            return False
        return response.status < 500

    def _peer(self, upstream: UpstreamSnapshot) -> _Peer:
        known = self._peers.get(upstream.upstream)
        if known is not None and known[0] is upstream:
            return known[1]
        parts = urlsplit(upstream.base_url)
        is_tls = parts.scheme == "https"
        host = parts.hostname or ""
        port = parts.port or (443 if is_tls else 80)
        prefix = parts.path.rstrip("/")
        is_chat = upstream.kind == UPSTREAM_OPENAI
        peer = _Peer(
            target=wire.Target(
                host=host,
                port=port,
                is_tls=is_tls,
                host_header=parts.netloc.rpartition("@")[2].encode(),
            ),
            # Base URLs of OpenAI's clients end with the version, Anthropic's do not.
            path_prefix=(prefix.removesuffix("/v1") if is_chat else prefix).encode(),
            secrets=self._secrets(upstream),
            is_chat=is_chat,
        )
        self._peers[upstream.upstream] = (upstream, peer)
        return peer

    def _secrets(self, upstream: UpstreamSnapshot) -> Mapping[int | None, bytes]:
        opened: dict[int | None, bytes] = {}
        for item in upstream.credentials[:CREDENTIALS_MAX]:
            try:
                secret = sealing.unseal(
                    item.sealed,
                    place=credential_place(item.credential),
                    master_keys=self._master_keys,
                )
            except sealing.CannotOpen:
                logger.exception("credential.sealed", extra={"credential": item.credential})
                continue
            opened[item.credential] = secret.encode()
        return opened

    def _start(self, hop: Hop, peer: _Peer, call: Call) -> bytes:
        """How the request begins: all but its own id and length, remembered with the head."""
        memo, place = call.memo, (peer, hop.credential, call.path)
        known = None if memo is None else memo.upstream_start
        # The very peer: another one has other secrets.
        if known is not None and known[0][0] is peer and known[0] == place:
            return known[1]
        path = peer.path_prefix + (CHAT_PATH if peer.is_chat else call.path)
        start = wire.start_of_head(peer.target, b"POST", path, self._headers(hop, peer, call))
        if memo is not None:
            memo.upstream_start = place, start
        return start

    def _headers(self, hop: Hop, peer: _Peer, call: Call) -> list[tuple[bytes, bytes]]:
        upstream = hop.upstream
        headers = upstream_request_headers(call.headers)
        secret = peer.secret_of(hop.credential)
        if peer.is_chat:
            headers = [field for field in headers if field[0] in CHAT_HEADERS]
        if secret and peer.is_chat:
            headers.append((b"authorization", b"Bearer " + secret))
        elif secret:
            headers.append((b"x-api-key", secret))
        if self._simulator_control and upstream.is_simulator:
            control = call.headers.get(b"x-simulator")
            if control is not None:
                headers.append((b"x-simulator", control))
        return headers

    async def _refused(
        self, upstream: UpstreamSnapshot, response: wire.UpstreamResponse
    ) -> AttemptFailed:
        status = response.status
        METRICS.upstream_errors.labels(upstream.name, str(status)).inc()
        if status in {401, 403}:
            logger.error(
                "upstream.credential_refused", extra={"upstream": upstream.name, "status": status}
            )
        try:
            await response.read_all(ERROR_BYTES_MAX, ERROR_SECONDS)
        except wire.UpstreamError:
            response.close()
        return AttemptFailed(
            overloaded(
                "The model is overloaded at the moment. Nothing was charged; try again shortly.",
                reason="upstream",
                retry_after_seconds=_retry_after(response.headers),
            ),
            outcome=words.OUTCOME_REFUSED,
            upstream_request_id=header_of(response.headers, b"request-id")
            or header_of(response.headers, b"x-request-id"),
            blame=_blame_of(status),
            cooling_seconds=_cooling_seconds(response),
        )


def failure_of(error: wire.UpstreamError) -> AttemptFailed:
    """What a broken exchange means for the client and for the next attempt."""
    if isinstance(error, wire.ReadTimeout | wire.HeadersTimeout):
        timeout = ApiError(
            504,
            "timeout_error",
            "The model took too long to answer. Nothing was charged.",
            reason="timeout",
            should_retry=True,
        )
        return AttemptFailed(
            timeout, outcome=words.OUTCOME_UNKNOWN, may_try_next=False, blame=Blame.UPSTREAM
        )
    if not error.may_be_processed:
        away = overloaded(
            "The model cannot be reached at the moment. Nothing was charged; try again shortly.",
            reason="upstream",
        )
        return AttemptFailed(
            away, outcome=words.OUTCOME_FAILED, is_repeatable=True, blame=Blame.UPSTREAM
        )
    is_lost = isinstance(error, wire.ConnectionLost)
    return AttemptFailed(
        _cannot_be_read(),
        outcome=words.OUTCOME_UNKNOWN,
        may_try_next=is_lost,
        is_repeatable=is_lost,
        blame=Blame.UPSTREAM,
    )


def unreadable(response: wire.UpstreamResponse) -> AttemptFailed:
    """What an answer means that came and is none: it may have been billed to us."""
    return AttemptFailed(
        _cannot_be_read(),
        outcome=words.OUTCOME_UNKNOWN,
        may_try_next=False,
        upstream_request_id=header_of(response.headers, b"request-id"),
        blame=Blame.UPSTREAM,
    )


def _cannot_be_read() -> ApiError:
    return ApiError(
        500,
        "api_error",
        "The model's answer could not be read. Nothing was charged.",
        reason="upstream",
        should_retry=True,
    )


async def read_answer(
    response: wire.UpstreamResponse, limit_bytes: int, timeout_seconds: float
) -> bytes:
    """The whole body of an answer. Raises AttemptFailed, which keeps the upstream's id of it."""
    try:
        return await response.read_all(limit_bytes, timeout_seconds)
    except wire.UpstreamError as error:
        # It may have been billed: its id is kept with the attempt, which stays unknown.
        failure = failure_of(error)
        failure.upstream_request_id = header_of(response.headers, b"request-id")
        raise failure from error


def header_of(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """The first header of that name, or None; names are in lower case already."""
    for key, value in headers:
        if key == name:
            return value.decode("latin-1")
    return None


def with_request_id(payload: bytes, *, upstream_id: str | None, request_id: str) -> bytes:
    """An upstream's error body with its request id replaced by ours; else the very bytes."""
    return payload.replace(upstream_id.encode(), request_id.encode()) if upstream_id else payload


def _blame_of(status: int) -> Blame:
    if status >= 500:
        return Blame.UPSTREAM
    # 409 and 425 speak of this request; the rest of what is ours, of our account.
    return Blame.NOBODY if status in {408, 409, 425} else Blame.CREDENTIAL


def _cooling_seconds(response: wire.UpstreamResponse) -> int:
    """How long the credential was told to wait; 0 where it was not told."""
    is_told = header_of(response.headers, b"retry-after") is not None
    return _retry_after(response.headers) if is_told and response.status in COOLING else 0


def _retry_after(headers: Iterable[tuple[bytes, bytes]]) -> int:
    text = header_of(headers, b"retry-after") or ""
    return min(max(int(text), 1), RETRY_AFTER_MAX) if text.isdecimal() else 2
